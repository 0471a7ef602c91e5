"""The model is known in every API that has one."""

import json
from typing import Any

import pytest

from controller.picker.forms import boundary_of, model_in_form
from controller.picker.requests import BodyPieces, PickRequest, pick_request

JSON = "application/json"
FORM = 'multipart/form-data; boundary="b"'


def _asked(path: str, body: bytes, content_type: str = JSON, **more: str) -> PickRequest:
    pieces = BodyPieces()
    pieces.add(body)
    headers = {b"x-infergate-request": b"1", b"x-infergate-then": b"@serve", b"x-infergate-pool": b"llm/gpu"}
    headers |= {name.replace("_", "-").encode(): value.encode() for name, value in more.items()}
    return pick_request("POST", path, {**headers, b"content-type": content_type.encode()}, pieces)


def _form(*parts: tuple[str, bytes]) -> bytes:
    body = b"".join(b"--b\r\nContent-Disposition: form-data; " + head.encode() + b"\r\n\r\n" + content + b"\r\n"
                    for head, content in parts)  # fmt: skip
    return body + b"--b--\r\n"


MESSAGES = [{"role": "user", "content": "hi"}]
APIS: list[tuple[str, dict[str, Any], bool, bool]] = [  # any: fields of a body
    # path, body, whether there is a prompt, whether the answer may tell its tokens
    ("/v1/chat/completions", {"messages": MESSAGES}, True, True),
    ("/v1/completions", {"prompt": "hi"}, True, True),
    ("/v1/embeddings", {"input": "hi"}, True, True),
    ("/v1/responses", {"input": "hi"}, True, True),
    ("/v1/messages", {"messages": MESSAGES}, True, True),
    ("/v1/messages/count_tokens", {"messages": MESSAGES}, False, False),
    ("/v1/rerank", {"query": "q", "documents": ["d"]}, False, True),
    ("/v2/rerank", {"query": "q", "documents": ["d"]}, False, True),
    ("/rerank", {"query": "q", "documents": ["d"]}, False, True),
    ("/v1/score", {"text_1": "a", "text_2": ["b"]}, False, True),
    ("/score", {"text_1": "a", "text_2": "b"}, False, True),
    ("/v1/audio/speech", {"input": "hi", "voice": "alloy"}, False, False),
    ("/v1/images/generations", {"prompt": "a cat"}, False, True),
    ("/v1/images/edits", {"prompt": "a cat", "images": [{"file_id": "f"}]}, False, True),
]


@pytest.mark.parametrize("odd", [{}, {"max_tokens": "many", "stream": "no"}])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/rerank"])
def test_byte_order_mark_is_passed_over(path: str, odd: dict[str, Any]) -> None:
    body = json.dumps({"messages": MESSAGES, "model": "m", **odd}).encode()
    marked, plain = _asked(path, b"\xef\xbb\xbf" + body), _asked(path, body)
    assert (marked.model, list(marked.hashes)) == ("m", list(plain.hashes))
    assert _asked(path, b"\xef\xbb\xbf" * 2 + body).model == ""


@pytest.mark.parametrize("prefix", ["", "/gpu"])
@pytest.mark.parametrize(("path", "body", "has_prompt", "tells"), APIS, ids=[row[0] for row in APIS])
def test_model_in_json(prefix: str, path: str, body: dict[str, Any], has_prompt: bool, tells: bool) -> None:
    request = _asked(prefix + path, json.dumps({**body, "model": "m"}).encode())
    assert (request.model, request.prompt_bytes > 0, request.tells_usage) == ("m", has_prompt, tells)


@pytest.mark.parametrize("path", ["audio/transcriptions", "audio/translations", "images/edits", "images/variations"])
def test_model_in_a_form(path: str) -> None:
    body = _form(('name="file"; filename="a.wav"', b"\x00\r\n--x" * 9), ('name="model"', b"m"), ('name="prompt"', b"p"))
    request = _asked(f"/v1/{path}", body, FORM)
    assert (request.model, request.prompt_bytes, request.tells_usage) == ("m", 0, True)


@pytest.mark.parametrize(
    ("body", "model", "is_streamed"),
    [
        (b'{"model":"m","stream":true}', "m", True),
        (b'{"model":"m","stream":1}', "m", False),
        (b'{"model":"a","model":"m"}', "m", False),
        (b'{"model":3}', "", False),
        (b'{"model":null}', "", False),
        (b'{"model":"m"', "", False),
        (b"[]", "", False),
    ],
)
def test_body_without_a_prompt_is_read_like_the_others(body: bytes, model: str, is_streamed: bool) -> None:
    request = _asked("/v1/rerank", body)
    assert (request.model, request.is_streamed) == (model, is_streamed)


@pytest.mark.parametrize("path", ["/v1/files", "/v1/batches", "/v1/generations", "/tokenize", "/v1/realtime"])
def test_other_apis_pass_through(path: str) -> None:
    request = _asked(path, b'{"model":"m","stream":true}')
    assert (request.model, request.is_streamed, request.tells_usage) == ("", False, False)


def test_model_that_nginx_read_is_known_everywhere() -> None:
    assert _asked("/v1/files", b"{}", x_gateway_model_name="meta/ü").model == "meta/ü"


@pytest.mark.parametrize(
    ("parts", "model"),
    [
        ([('name="model"', b"m")], "m"),
        ([("name=model", b"m")], "m"),
        ([('name="model"', b"a"), ('name="model"', b"m")], "m"),
        ([('name="model"', b"m"), ('name="model"; filename="f"', b"a")], "m"),
        ([('name="models"', b"m")], ""),
        ([('name="model"', b"")], ""),
        ([('name="model"', b"\xff")], ""),
        ([('name="model"', b"x" * 4097)], ""),
        ([], ""),
    ],
)
def test_last_field_of_a_form_counts(parts: list[tuple[str, bytes]], model: str) -> None:
    assert model_in_form(_form(*parts), b"b") == model


@pytest.mark.parametrize("cut", range(1, 70))
def test_form_that_breaks_off_names_none(cut: int) -> None:
    body = _form(('name="model"', b"m"))
    assert model_in_form(body[: min(cut, len(body) - 3)], b"b") == ""


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=b", b"b"),
        ('Multipart/Form-Data ; charset=x; Boundary="a b"', b"a b"),
        ("multipart/form-data", b""),
        ("multipart/form-datax; boundary=b", None),
        ("application/json", None),
        ("", None),
    ],
)
def test_boundary(content_type: str, boundary: bytes | None) -> None:
    assert boundary_of(content_type) == boundary
