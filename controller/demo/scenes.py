"""The four scenes of the demo, played by a client and judged."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller.demo import judge
from controller.demo.client import COMPLEX, PRIORITY, Client, endpoints_of
from controller.demo.files import ROUTES
from controller.demo.judge import Answer, Verdict
from controller.demo.servers import ModelServer

_AUDIO: Final = "1 model-aware routing"
_CANARY: Final = "2 canary"
_PRIORITY: Final = "3 serving priority"
_CHANGE: Final = "4 instant change"

_CHATS: Final = 300
"""The smaller pool gets 30 of them: that one of its two pods is left out by chance happens once in 10^6 runs."""
_AT_ONCE: Final = 8
_SHARES: Final = (("gpu", 0.9), ("cpu", 0.1))
_FEW: Final = 10
_SERVED: Final = {200: "served"}
_HEARD: Final = _SERVED | {501: "the model takes no audio"}
_LONG: Final = {"gpu": 6000, "cpu": 2900}
"""Tokens of an answer that lasts longer than it is needed, and fits the context of a llama.cpp server."""
_FEED_SECONDS: Final = 0.05
"""The picker hears of the end of a request within 25 ms. Only then is a pod free that served the one before."""
_CHANGE_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Stage:
    """What the scenes are played on."""

    client: Client
    servers: tuple[ModelServer, ...]
    directory: Path
    access_log: Path
    log_lines: Sequence[str]
    """Lines of the gateway's log; those to come are added to it."""


async def play(stage: Stage, *, say: Callable[[str], None]) -> tuple[Verdict, ...]:
    """Plays all scenes, each of which is said as it begins. Raises NotLogged."""
    verdicts: list[Verdict] = []
    for scene, act in ((_AUDIO, _audio), (_CANARY, _canary), (_PRIORITY, _priority), (_CHANGE, _change)):
        say(f"playing scene {scene}")
        verdicts += await act(stage)
    return tuple(verdicts)


async def _audio(stage: Stage) -> tuple[Verdict, ...]:
    answers = [await stage.client.transcribe() for _ in range(_FEW)]
    asked = f"{_FEW} transcriptions by a Llama 3.1"
    return (judge.from_pool(_AUDIO, asked, answers, pool="cpu", statuses=_HEARD),)


async def _canary(stage: Stage) -> tuple[Verdict, ...]:
    answers: list[Answer] = []

    async def ask(count: int) -> None:
        answers.extend([await stage.client.chat() for _ in range(count)])

    async with asyncio.TaskGroup() as group:
        for number in range(_AT_ONCE):
            group.create_task(ask(len(range(number, _CHATS, _AT_ONCE))))
    served = Counter(await _pods(stage, answers))
    return (
        judge.split(_CANARY, f"{_CHATS} chats, weights 90 and 10", answers, shares=_SHARES),
        judge.all_used(_CANARY, pods=[server.name for server in stage.servers], served=served),
        *await _best_pod(stage, "gpu", headers=COMPLEX),
        *await _best_pod(stage, "cpu", headers={}),
    )


async def _best_pod(stage: Stage, pool: str, *, headers: Mapping[str, str]) -> tuple[Verdict, ...]:
    """Keeps one pod of a pool busy with a streamed answer, and asks others of the pool meanwhile."""
    answers = []
    async with stage.client.stream(headers=headers, max_tokens=_LONG[pool]) as stream:
        for _ in range(_FEW):
            answers.append(await stage.client.chat(PRIORITY, headers=headers))
            await asyncio.sleep(_FEED_SECONDS)
    (busy,) = await _pods(stage, [stream.answer])
    served = Counter(await _pods(stage, answers))
    names = [server.name for server in stage.servers if server.pool == pool]
    is_whole = stream.is_event_stream and not stream.has_ended
    return (
        judge.spared(_CANARY, pool=pool, pods=names, busy=busy, served=served),
        judge.streamed(_CANARY, pod=busy, events=stream.events, is_whole=is_whole),
    )


async def _pods(stage: Stage, answers: Sequence[Answer]) -> tuple[str, ...]:
    """The name of the pod that served each request; empty where none did, or not well."""
    names = {server.address: server.name for server in stage.servers}
    endpoints = await endpoints_of([answer.id for answer in answers], access_log=stage.access_log)
    return tuple(names.get(endpoints[answer.id], "") if answer.status == 200 else "" for answer in answers)


async def _priority(stage: Stage) -> tuple[Verdict, ...]:
    marked = [await stage.client.chat(PRIORITY, headers=COMPLEX) for _ in range(_FEW)]
    plain = [await stage.client.chat(PRIORITY) for _ in range(_FEW)]
    low = [await stage.client.chat(PRIORITY, headers={"X-Query-Complexity": "low"}) for _ in range(_FEW)]
    return (
        judge.from_pool(_PRIORITY, f"{_FEW} chats, complexity high", marked, pool="gpu", statuses=_SERVED),
        judge.from_pool(_PRIORITY, f"{_FEW} chats, complexity low", low, pool="cpu", statuses=_SERVED),
        judge.from_pool(_PRIORITY, f"{_FEW} chats, none said", plain, pool="cpu", statuses=_SERVED),
    )


async def _change(stage: Stage) -> tuple[Verdict, ...]:
    """Takes all weight from `gpu`, as a user would, and asks without a pause until no answer comes from there."""
    routes = stage.directory / ROUTES
    text = routes.read_text()
    length = judge.streak(dict(_SHARES)["cpu"], chance=judge.CHANCE)
    answers: list[Answer] = []
    heard = len(stage.log_lines)
    edited = stage.client.clock()
    routes.write_text(text.replace("weight: 90", "weight: 0"))
    while stage.client.clock() < edited + _CHANGE_SECONDS:
        answers.append(await stage.client.chat())
        if len(answers) >= length and {answer.pool for answer in answers[-length:]} == {"cpu"}:
            break
    asked = f"chats, weight 90 edited to 0 in {ROUTES}"
    return (
        judge.went_live(_CHANGE, answers, asked=asked, pool="cpu", edited=edited, length=length),
        judge.logged(_CHANGE, stage.log_lines[heard:], file=ROUTES, change="weight 90 -> 0"),
    )
