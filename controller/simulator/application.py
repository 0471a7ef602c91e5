"""The ASGI application of one pod.

Plain ASGI: a router and response classes would cost more per request than all else here, and a benchmark shares its
machine with the simulator.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from pydantic import BaseModel, ValidationError
from starlette.types import Receive, Scope, Send

from controller.simulator import completions
from controller.simulator.answers import models_body
from controller.simulator.exchange import ClientLeft, Connection, Exchange, Refused, arrival_of
from controller.simulator.faults import Fault, FaultKind, FaultPaths
from controller.simulator.pod import Pod

_INFERENCE: dict[str, Callable[[Pod, Exchange, bytes], Awaitable[None]]] = {
    "/v1/chat/completions": completions.chat,
    "/v1/completions": completions.completion,
    "/v1/responses": completions.response,
    "/v1/embeddings": completions.embeddings,
    "/v1/audio/transcriptions": completions.transcription,
}
_PROBED = ("/health", "/ping", "/metrics")
"""Asked over and over by probes and scrapes, which would drive everything else out of the list of arrivals."""
_VERSION = "0.0.0+simulated"
"""Of vLLM; there is none here."""
_LOAD, _UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
_WRONG_ADAPTER = "InvalidUserInput"
"""What vLLM calls an error of these paths."""
_TOKENS: dict[str, Callable[[Pod, Exchange, bytes], Awaitable[None]]] = {
    "/tokenize": completions.tokenize,
    "/detokenize": completions.detokenize,
}
_ADMIN = "/simulator/"


class _Adapter(BaseModel):
    """What is loaded or unloaded; where it is loaded from does not matter here."""

    lora_name: str
    lora_path: str = ""
    load_inplace: bool = False


class Siblings(Protocol):
    """The pods of this process, as far as the admin paths need them."""

    def described(self) -> list[dict[str, object]]:
        """One JSON object per pod, in the order in which they were given."""

    async def set_fault(self, name: str, fault: Fault, *, spared: Connection | None = None) -> None:
        """A pod that dies closes all its connections but `spared`. Raises KeyError for an unknown name."""


class Application:
    def __init__(self, pod: Pod, *, siblings: Siblings) -> None:
        self._pod = pod
        self._siblings = siblings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._echo(scope, receive, send)
            return
        exchange = Exchange(scope, receive, send, arrival=arrival_of(scope))
        try:
            await self._answer(scope["method"], scope["path"], exchange)
        except Refused as refused:
            await exchange.answer_error(refused)
        except ClientLeft:
            exchange.arrival.aborted = True
        finally:
            exchange.end()

    async def _answer(self, method: str, path: str, exchange: Exchange) -> None:
        if path.startswith(_ADMIN):
            await self._administer(method, path.removeprefix(_ADMIN), exchange)
            return
        if path not in _PROBED and not exchange.arrival.is_probe:
            self._pod.arrivals.append(exchange.arrival)
        body = await exchange.body()
        inference = _INFERENCE.get(path)
        if await _suffer(self._pod, exchange, path=_struck_as(path)):
            return
        if inference is not None:
            _expect(method, "POST")
            await inference(self._pod, exchange, body)
        elif path in _TOKENS:
            _expect(method, "POST")
            await _TOKENS[path](self._pod, exchange, body)
        elif path in (_LOAD, _UNLOAD):
            _expect(method, "POST")
            await self._change_adapters(path, exchange, body)
        else:
            await self._report(method, path, exchange)

    async def _report(self, method: str, path: str, exchange: Exchange) -> None:
        pod = self._pod
        if path not in (*_PROBED, "/v1/models", "/version"):
            raise Refused(404, f"no such path: {path}")
        if path != "/ping" or method != "POST":
            _expect(method, "GET")
        if path in ("/health", "/ping"):
            await exchange.answer(b"")
        elif path == "/version":
            await exchange.answer_json({"version": _VERSION})
        elif path == "/metrics":
            await exchange.answer(pod.metrics(), content_type=b"text/plain; version=0.0.4; charset=utf-8")
        else:
            await exchange.answer(models_body(pod.models, created=pod.created, max_context=pod.settings.max_context))

    async def _change_adapters(self, path: str, exchange: Exchange, body: bytes) -> None:
        """As vLLM does where adapters may change at runtime."""
        try:
            adapter = _Adapter.model_validate_json(body)
        except ValidationError as error:
            raise Refused(400, str(error)) from error
        name = adapter.lora_name
        adapters = self._pod.adapters
        if path == _LOAD:
            if not adapter.lora_name or not adapter.lora_path:
                raise Refused(400, "Both 'lora_name' and 'lora_path' must be provided.", kind=_WRONG_ADAPTER)
            if name not in adapters:
                adapters.append(name)
            elif not adapter.load_inplace:
                raise Refused(400, f"The lora adapter '{name}' has already been loaded.", kind=_WRONG_ADAPTER)
        else:
            if name not in adapters:
                raise Refused(404, f"The lora adapter '{name}' cannot be found.")
            adapters.remove(name)
        done = f"Success: LoRA adapter '{name}' {'added' if path == _LOAD else 'removed'} successfully."
        await exchange.answer(done.encode(), content_type=b"text/plain; charset=utf-8")

    async def _administer(self, method: str, path: str, exchange: Exchange) -> None:
        match method, path.split("/"):
            case "GET", ["requests"]:
                await exchange.answer_json([arrival.as_json() for arrival in self._pod.arrivals])
            case "DELETE", ["requests"]:
                cleared = len(self._pod.arrivals)
                self._pod.arrivals.clear()
                await exchange.answer_json({"cleared": cleared})
            case "GET", ["pods"]:
                await exchange.answer_json(self._siblings.described())
            case "GET", ["fault"]:
                await exchange.answer_json(self._pod.fault.model_dump(mode="json"))
            case "POST", ["fault"]:
                await self._set_fault(self._pod.settings.name, exchange)
            case "POST", ["pods", name, "fault"]:
                await self._set_fault(name, exchange)
            case _:
                raise Refused(404, f"no such path: {_ADMIN}{path}")

    async def _set_fault(self, name: str, exchange: Exchange) -> None:
        try:
            fault = Fault.model_validate_json(await exchange.body())
        except ValidationError as error:
            raise Refused(400, str(error)) from error
        try:
            await self._siblings.set_fault(name, fault, spared=exchange.connection)
        except KeyError as error:
            raise Refused(404, f"no such pod: {name}") from error
        except OSError as error:
            raise Refused(500, f"{name} cannot listen again: {error}") from error
        await exchange.answer_json(fault.model_dump(mode="json"), closes=fault.kind is FaultKind.DIE)

    async def _echo(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send every message back, from the opening of the connection until its end."""
        self._pod.arrivals.append(arrival_of(scope))
        await receive()
        if scope["path"] != "/v1/realtime":
            await send({"type": "websocket.close", "code": 1000})
            return
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message.get("text"), "bytes": message.get("bytes")})


def _expect(method: str, expected: str) -> None:
    if method != expected:
        raise Refused(405, "Method Not Allowed")


def _struck_as(path: str) -> FaultPaths | None:
    if path in _INFERENCE:
        return FaultPaths.INFERENCE
    return FaultPaths.METRICS if path == "/metrics" else None


async def _suffer(pod: Pod, exchange: Exchange, *, path: FaultPaths | None) -> bool:
    """Meet the pod's fault; True if that was the end of the request. Raises Refused and ClientLeft."""
    fault = pod.strike(path)
    match fault.kind:
        case FaultKind.ERROR:
            raise Refused(fault.status, "this error was asked for at /simulator/fault")
        case FaultKind.RESET:
            exchange.connection.reset()
            await exchange.wait_until_left()
            return True
        case FaultKind.HANG:
            left = asyncio.ensure_future(exchange.wait_until_left())
            recovered = asyncio.ensure_future(pod.wait_until_recovered())
            await asyncio.wait({left, recovered}, return_when=asyncio.FIRST_COMPLETED)
            left.cancel()
            recovered.cancel()
            return exchange.is_lost
        case _:
            return False
