"""Refusals are answers of the picker, with status, reason and time to come again."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.extproc.messages import BodyPart, Immediate, Phase
from controller.plugins.types import AppliedPolicy
from controller.pools import Pool, PoolEndpoint, encode_pools, pools_of

from .conftest import (
    ONE_AT_A_TIME,
    ONE_WAITS,
    Gateway,
    Served,
    Talk,
    eventually,
    gateway_of,
    request_headers,
    served_picker,
)

POD = "127.1.0.1:8000"


def headers_of(answer: Immediate) -> dict[str, str]:
    return {one.name: one.value.decode() for one in answer.changes.set}


async def test_pool_without_endpoints_is_503(picker: Served, gateway: Gateway) -> None:
    await picker.serving()
    talk = gateway.talk()
    await talk.ask(body=b"{}")
    answer = await talk.refused()
    assert answer.status == 503
    assert headers_of(answer) == {
        "content-type": "application/json",
        "retry-after": "1",
        "x-llm-d-request-dropped-reason": "rejected-no-endpoints",
    }
    assert json.loads(answer.body)["error"]["code"] == "no_endpoints"


async def test_picker_that_read_no_pools_is_503(picker: Served, gateway: Gateway) -> None:
    talk = gateway.talk()
    await talk.ask(method="GET")
    answer = await talk.refused()
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (503, "picker_not_ready")


async def test_refusal_has_the_shape_of_the_api_that_was_asked(picker: Served, gateway: Gateway) -> None:
    await picker.serving()
    talk = gateway.talk()
    await talk.ask("/v1/messages", body=b"{}")
    assert json.loads((await talk.refused()).body)["type"] == "error"


async def test_refusal_ends_the_stream_and_leaves_nothing(picker: Served, gateway: Gateway) -> None:
    await picker.serving()
    talk = gateway.talk()
    await talk.ask(body=bytes(100_000))
    await talk.refused()
    await picker.at_rest()
    assert await picker.metric("infergate_ext_proc_streams_ended_total", end="answered") == 1


async def saturated(picker: Served, gateway: Gateway, policy: AppliedPolicy = ONE_AT_A_TIME) -> Talk:
    """The stream of a request that takes all there is, under a policy by which others wait."""
    await picker.serving(POD, policy=policy)
    talk = gateway.talk()
    await talk.ask(body=b"{}")
    await talk.picked()
    await talk.body()
    return talk


async def waits(picker: Served, count: int = 1) -> None:
    """Wait until so many requests wait."""

    async def is_so() -> bool:
        return await picker.metric("infergate_flow_control_queue_size") == count

    await eventually(is_so)


async def test_request_waits_for_its_turn(picker: Served, gateway: Gateway) -> None:
    first = await saturated(picker, gateway)
    second = gateway.talk()
    await second.ask(body=b'{"prompt":1}')
    await waits(picker)
    await first.respond(b"{}")
    assert await second.picked() == POD
    assert (await second.body())[0] == b'{"prompt":1}'


@pytest.mark.parametrize("how", ["reset", "half-closed"])
async def test_client_that_hangs_up_leaves_the_queue_at_once(picker: Served, gateway: Gateway, how: str) -> None:
    await saturated(picker, gateway)
    talk = gateway.talk()
    await talk.ask(body=b"{}")
    await waits(picker)
    if how == "reset":
        talk.call.cancel()
    else:
        await talk.close()
    await waits(picker, 0)
    assert (await picker.decisions())[0]["outcome"] == "client_hung_up"


async def test_answer_of_the_gateway_itself_takes_a_request_out_of_the_queue(picker: Served, gateway: Gateway) -> None:
    await saturated(picker, gateway)
    talk = gateway.talk()
    await talk.ask(body=b"{}")
    await waits(picker)
    # The gateway's own timeout: a local reply passes the filters as an answer does.
    await talk.respond(b"timeout", status=504)
    await waits(picker, 0)
    await talk.close()


async def test_full_queue_is_429(picker: Served, gateway: Gateway) -> None:
    await saturated(picker, gateway, ONE_WAITS)
    waiting, shed = gateway.talk(), gateway.talk()
    await waiting.ask(body=b"{}")
    await waits(picker)
    await shed.ask(body=b"{}")
    answer = await shed.refused()
    assert answer.status == 429
    assert headers_of(answer)["x-llm-d-request-dropped-reason"] == "rejected-saturated"
    assert int(headers_of(answer)["retry-after"]) > 0


async def test_priority_is_what_the_gateway_says_and_not_the_client(picker: Served, gateway: Gateway) -> None:
    await saturated(picker, gateway)
    low, claimed = gateway.talk(), gateway.talk()
    await low.ask(body=b"{}", metadata={"infergate.dev": {"x-infergate-priority": "-1"}})
    assert (await low.refused()).status == 429
    await claimed.ask(body=b"{}", headers={"x-infergate-priority": "-1"})
    await waits(picker)


async def test_models_are_listed_by_the_picker(picker: Served, gateway: Gateway) -> None:
    page = b'{"data":[{"id":"m"}]}'

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(page), page))
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        await picker.serving(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")

        async def is_listed() -> bool:
            talk = gateway.talk()
            await talk.ask("/v1/models", method="GET")
            answer, _ = await talk.next()
            return (
                isinstance(answer, Immediate)
                and answer.status == 200
                and [one["id"] for one in json.loads(answer.body)["data"]] == ["m"]
            )

        await eventually(is_listed)


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[Served]:
    """A picker with memory for 2 MiB of bodies."""
    async with served_picker(tmp_path, ext_proc={"body_memory": 2 * 1024 * 1024}) as served:
        await served.serving(POD)
        yield served


async def test_body_that_never_fits_is_413(small: Served) -> None:
    async with gateway_of(small.address) as gateway:
        talk = gateway.talk()
        await talk.send(request_headers())
        await talk.send(BodyPart(Phase.REQUEST, bytes(2 * 1024 * 1024 + 1)))
        assert (await talk.refused()).status == 413
    await small.at_rest()


async def test_bodies_that_do_not_fit_together_are_429_and_memory_comes_back(small: Served) -> None:
    async with gateway_of(small.address) as gateway:
        first, second = gateway.talk(), gateway.talk()
        for talk in (first, second):
            await talk.send(request_headers())
        await first.send(BodyPart(Phase.REQUEST, bytes(1_500_000)))

        async def is_held() -> bool:
            return (await small.counts())[2] == 1_500_000

        await eventually(is_held)
        await second.send(BodyPart(Phase.REQUEST, bytes(1_000_000)))
        answer = await second.refused()
        assert (answer.status, headers_of(answer)["retry-after"]) == (429, "1")
        await first.send(BodyPart(Phase.REQUEST, b"", end_of_stream=True))
        assert await first.picked() == POD
        assert len((await first.body())[0]) == 1_500_000
        third = gateway.talk()
        await third.ask(body=bytes(1_000_000))
        assert await third.picked() == POD
    await small.at_rest()


async def test_pool_is_named_where_the_file_has_several(tmp_path: Path) -> None:
    def pool(name: str, address: str) -> Pool:
        return Pool(name=name, endpoints=(PoolEndpoint(address=address, name=f"{name}-0"),))

    text = encode_pools(pools_of((pool("llm/a", "127.1.0.1:1"), pool("llm/b", "127.1.0.2:1"))))
    (tmp_path / "pools.json").write_bytes(text)
    for name, expected in (("llm/b", "127.1.0.2:1"), ("", "500")):
        async with served_picker(tmp_path, ext_proc={"pool": name}) as served, gateway_of(served.address) as gateway:

            async def is_ready(served: Served = served) -> bool:
                return (await served.admin.get("/readyz")).status_code == 200

            await eventually(is_ready)
            talk = gateway.talk()
            await talk.ask(method="GET", path="/v1/things")
            if name:
                assert await talk.picked() == expected
            else:
                assert str((await talk.refused()).status) == expected
