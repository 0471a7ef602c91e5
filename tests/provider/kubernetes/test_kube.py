"""Calls of the API server: their errors, their limits, and what they make of what comes back."""

import asyncio
import logging
from pathlib import Path

import pytest
from aiohttp import web

from controller.errors import (
    ApiBusy,
    ApiConflict,
    ApiDenied,
    ApiError,
    ApiExpired,
    ApiMissing,
    ApiRefused,
    ApiUnreachable,
    SettingInvalid,
)
from controller.kube import Api, configuration
from tests.provider.kubernetes.fake import ROUTES, FakeApi, refusal, route


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (401, ApiDenied),
        (403, ApiDenied),
        (404, ApiMissing),
        (409, ApiConflict),
        (410, ApiExpired),
        (422, ApiRefused),
        (429, ApiBusy),
        (500, ApiBusy),
        (503, ApiBusy),
    ],
)
async def test_refusal_is_one_of_ours(server: FakeApi, code: int, kind: type[ApiError]) -> None:
    server.fault = lambda request: refusal(code, "Because")
    async with server.client() as api:
        with pytest.raises(ApiRefused, match=f"refused with {code} Because: because") as caught:
            await api.request("GET", ROUTES)
    assert type(caught.value) is kind


async def test_answer_that_is_no_json_is_unreachable(server: FakeApi) -> None:
    server.fault = lambda request: web.Response(text="<html>")
    async with server.client() as api:
        with pytest.raises(ApiUnreachable, match="no JSON object"):
            await api.request("GET", ROUTES)


async def test_refusal_of_a_proxy_in_between_is_told_in_its_words(server: FakeApi) -> None:
    server.fault = lambda request: web.Response(status=502, text="bad gateway")
    async with server.client() as api:
        with pytest.raises(ApiRefused, match="502 502: bad gateway"):
            await api.request("GET", ROUTES)


async def test_closed_port_is_unreachable(server: FakeApi) -> None:
    async with server.client() as api:
        await server.stop()
        with pytest.raises(ApiUnreachable):
            await api.request("GET", ROUTES)


async def test_server_that_says_nothing_is_given_up() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()
        over.set()

    over = asyncio.Event()
    listener = await asyncio.start_server(silent, "127.0.0.1", 0)
    server = FakeApi()
    server.port = listener.sockets[0].getsockname()[1]
    async with listener, server.client(timeout=0.1) as api:
        with pytest.raises(ApiUnreachable):
            await api.request("GET", ROUTES)
        await asyncio.wait_for(over.wait(), 5)


async def test_watch_whose_end_never_comes_is_given_up(server: FakeApi) -> None:
    async with server.client() as api:
        with pytest.raises(ApiUnreachable):
            async for _ in api.watch(ROUTES, version="0", seconds=0.1, grace=0.1):
                pass


async def test_event_of_many_pieces_is_one(server: FakeApi) -> None:
    large = route("large")
    large["metadata"]["annotations"] = {"long": "x" * 3_000_000}
    await server.put(ROUTES, large)
    async with server.client() as api:
        async for event in api.watch(ROUTES, version="0", seconds=5):
            assert len(event.object["metadata"]["annotations"]["long"]) == 3_000_000
            break


async def test_items_of_a_list_have_their_kind(server: FakeApi) -> None:
    bare = {"metadata": {"name": "one", "namespace": "demo"}}
    answer = {"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "7"}, "items": [bare]}
    server.fault = lambda request: web.json_response(answer)
    async with server.client() as api:
        (page,) = [page async for page in api.pages("/api/v1/pods")]
    assert (page.version, page.items) == ("7", ({"apiVersion": "v1", "kind": "Pod", **bare},))


async def test_token_is_sent_and_never_logged(
    server: FakeApi, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text(
        f"""\
apiVersion: v1
kind: Config
current-context: test
contexts: [{{name: test, context: {{cluster: test, user: test}}}}]
clusters: [{{name: test, cluster: {{server: "http://127.0.0.1:{server.port}"}}}}]
users: [{{name: test, user: {{token: sesame}}}}]
"""
    )
    async with Api(await configuration(kubeconfig)) as api:
        await api.request("GET", ROUTES)
    assert server.asked[0].headers["Authorization"] == "Bearer sesame"
    assert "sesame" not in caplog.text


async def test_kubeconfig_that_is_not_there_is_a_wrong_setting(tmp_path: Path) -> None:
    with pytest.raises(SettingInvalid, match=r"kubeconfig .*nowhere"):
        await configuration(tmp_path / "nowhere")
