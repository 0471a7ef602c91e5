"""Sessions of Infergate's own gateway, as the picker is told of them."""

from controller.extproc.messages import Immediate, Metadata

from .conftest import Gateway, Served, request_headers

SECOND: Metadata = {"envoy.lb.subset_hint": {"x-gateway-destination-endpoint-subset": ["127.1.0.2:8000"]}}
"""What a gateway says to a picker that knows of no sessions."""


def _on_second(**limits: object) -> Metadata:
    """What Infergate's gateway says of a request whose session is on the second pod."""
    return {**SECOND, "infergate.dev": {"session": "127.1.0.2:8000", **limits}}


async def _picks(gateway: Gateway, metadata: Metadata, *, count: int = 6) -> set[str]:
    picked = set()
    for _ in range(count):
        talk = gateway.talk()
        await talk.send(request_headers(method="GET", ends=True), metadata)
        picked.add(await talk.picked())
    return picked


async def test_endpoint_of_a_session_is_preferred(picker: Served, gateway: Gateway) -> None:
    await picker.serving("127.1.0.1:8000", "127.1.0.2:8000", "127.1.0.3:8000")
    assert await _picks(gateway, _on_second()) == {"127.1.0.2:8000"}


async def test_session_moves_when_its_endpoint_fails_or_is_gone(picker: Served, gateway: Gateway) -> None:
    await picker.serving("127.1.0.1:8000", "127.1.0.2:8000")
    talk = gateway.talk()
    await talk.send(request_headers(method="GET", ends=True), _on_second())
    await talk.picked()
    await talk.respond(status=503)
    await talk.close()
    assert await _picks(gateway, SECOND, count=1) == {"127.1.0.2:8000"}
    assert await _picks(gateway, _on_second(), count=1) == {"127.1.0.1:8000"}
    await picker.serving("127.1.0.1:8000")
    assert await _picks(gateway, _on_second()) == {"127.1.0.1:8000"}


async def test_session_stays_within_the_subset(picker: Served, gateway: Gateway) -> None:
    await picker.serving("127.1.0.1:8000", "127.1.0.2:8000", "127.1.0.3:8000")
    limits = {"x-gateway-destination-endpoint-subset": ["127.1.0.1:8000", "127.1.0.3:8000"]}
    assert await _picks(gateway, _on_second(**limits)) == {"127.1.0.1:8000", "127.1.0.3:8000"}


async def test_refusal_tells_that_it_is_not_because_of_the_session(picker: Served, gateway: Gateway) -> None:
    await picker.serving()
    for metadata, told in ((_on_second(), {"infergate.dev": {"session": "127.1.0.2:8000"}}), (SECOND, {})):
        talk = gateway.talk()
        await talk.send(request_headers(method="GET", ends=True), metadata)
        answer, said = await talk.next()
        assert isinstance(answer, Immediate)
        assert (answer.status, said) == (503, told)
