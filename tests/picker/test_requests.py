import pytest

from controller.picker.health import Failure
from controller.picker.requests import BodyPieces, NotFromGateway, Try, failure_of_status, pick_request, read_tried

HEADERS = {b"x-infergate-pool": b"llm/gpu", b"x-infergate-then": b"@r3", b"x-infergate-request": b"abc"}


def pieces(*parts: bytes) -> BodyPieces:
    body = BodyPieces()
    for part in parts:
        body.add(part)
    return body


def test_body_is_put_together_and_counted() -> None:
    body = pieces(b'{"model":"m","pro', b'mpt":"' + b"x" * 1000, b'","stream":true,"max_tokens":5}')
    request = pick_request("POST", "/v1/completions", HEADERS, body)
    assert (request.pool, request.then, request.id) == ("llm/gpu", b"@r3", "abc")
    assert (request.model, request.is_streamed, request.max_tokens) == ("m", True, 5)
    assert (request.prompt_bytes, len(request.hashes), request.size) == (1002, 3, len(body.kept))


def test_body_above_the_limit_is_counted_only() -> None:
    body = pieces(*[b"x" * 1_000_000] * 9)
    assert (body.size, body.kept) == (9_000_000, b"")
    assert pick_request("POST", "/v1/completions", HEADERS, body).prompt_bytes == 0


@pytest.mark.parametrize("missing", [b"x-infergate-then", b"x-infergate-request"])
def test_pick_without_the_gateways_headers_is_refused(missing: bytes) -> None:
    headers = {name: value for name, value in HEADERS.items() if name != missing}
    with pytest.raises(NotFromGateway):
        pick_request("POST", "/v1/completions", headers, pieces())


def test_request_shows_neither_headers_nor_prompt() -> None:
    headers = HEADERS | {b"authorization": b"Bearer secret"}
    request = pick_request("POST", "/v1/completions", headers, pieces(b'{"model":"m","prompt":"secret"}'))
    assert "secret" not in repr(request)


@pytest.mark.parametrize(
    ("text", "tries"),
    [
        ("", ()),
        ("1.2.3.4:80=unreachable;", (Try("1.2.3.4:80", Failure.UNREACHABLE),)),
        ("1.2.3.4:80=closed;", (Try("1.2.3.4:80", Failure.CLOSED),)),
        ("[fd00::1]:80=timeout;", (Try("[fd00::1]:80", Failure.TIMEOUT),)),
        ("1.2.3.4:80=failed;", (Try("1.2.3.4:80", Failure.UNAVAILABLE),)),
        ("a:1=unreachable;b:2=timeout;", (Try("a:1", Failure.UNREACHABLE), Try("b:2", Failure.TIMEOUT))),
        ("nonsense;=x;", ()),
    ],
)
def test_tried_endpoints_tell_how_they_failed(text: str, tries: tuple[Try, ...]) -> None:
    assert read_tried(text) == tries


@pytest.mark.parametrize(
    ("status", "failure"),
    [
        (200, None),
        (404, None),
        (429, None),
        (500, Failure.ERROR),
        (501, None),
        (502, Failure.UNAVAILABLE),
        (503, Failure.UNAVAILABLE),
        (505, None),
        (507, Failure.ERROR),
    ],
)
def test_which_statuses_count_as_failures(status: int, failure: Failure | None) -> None:
    assert failure_of_status(status) is failure
