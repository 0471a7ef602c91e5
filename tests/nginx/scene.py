"""A gateway with two pools that an external picker picks for, whose parties do what a test says."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from controller.agent.nginx import Nginx
from controller.dataplane.relays import relay_command
from tests.nginx.ext_proc import Picker, Play, Stage, as_the_field_does, serve_ext_proc
from tests.nginx.gateway import Gateway, client_of, eventually, run_gateway
from tests.nginx.resources import picked_pool, route, rule, to_pool
from tests.nginx.servers import Answer, Backend, Request, describe, serve

LATE = 1.5
"""Seconds after which the relay takes a picker for late."""
MODES = {"FailClose": "close.test", "FailOpen": "open.test"}
"""Hostname of the pool with a failure mode."""


@dataclass
class Scene:
    gateway: Gateway
    http: httpx.AsyncClient
    picker: Picker
    a: Backend
    b: Backend
    play: Play
    """What the picker does."""
    answer: Answer = describe
    """What both endpoints do."""

    def reset(self) -> None:
        self.play, self.answer = as_the_field_does(self.a.address), describe
        for backend in (self.a, self.b):
            backend.requests.clear()
        self.picker.stages.clear()

    async def post(self, body: bytes = b"{}", *, mode: str = "FailClose", **headers: str) -> httpx.Response:
        given = {"host": MODES[mode], **{name.replace("_", "-"): value for name, value in headers.items()}}
        return await self.http.post("/v1/chat/completions", content=body, headers=given)

    async def stage(self) -> Stage:
        """The one stream, once it has ended."""
        (stage,) = self.picker.stages
        async with asyncio.timeout(10):
            await stage.ended.wait()
        return stage

    async def rests(self) -> None:
        """Waits until the relay has nothing under way, and no stream is open."""

        async def is_at_rest() -> bool:
            known = await self.gateway.relay()
            return (
                known["exchanges"]["under_way"] == 0
                and all(picker["streams"] == 0 for picker in known["pickers"])
                and self.picker.open == 0
            )

        await eventually(is_at_rest)


@asynccontextmanager
async def run_scene(root: Path, nginx: Nginx, *, relay_options: Sequence[str] = ()) -> AsyncIterator[Scene]:
    async def play(stage: Stage) -> None:
        await scene.play(stage)

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        await scene.answer(request, writer)

    relay = (*relay_command(), "--answer-timeout", str(LATE), "--silence", "0.5", *relay_options)
    async with (
        serve(answer, name="a") as a,
        serve(answer, name="b") as b,
        serve_ext_proc(play) as picker,
        run_gateway(root, nginx, relay=relay) as gateway,
        client_of(gateway) as http,
    ):
        scene = Scene(gateway, http, picker, a, b, as_the_field_does(a.address))
        pools = [picked_pool(mode.lower(), a.address, b.address, pickers=[picker.address], mode=mode) for mode in MODES]
        routes = [route(mode.lower(), rule(to_pool(mode.lower())), hostnames=[host]) for mode, host in MODES.items()]
        await gateway.apply("pools.yaml", *pools, *routes)
        yield scene
