"""Programs of ours beside nginx, as children of the process that runs it."""

import json
import logging
import re
import signal

from controller.agent import client
from controller.agent.state import State
from controller.agent.supervise import Check, Program


def answering(name: str, command: tuple[str, ...], state: State, *, socket: str, misses: int = 3) -> Program:
    """A program that answers `/healthz` on a Unix socket, named relative to the state directory.

    It is killed after so many answers in a row that it owes.
    """

    async def is_well() -> bool:
        return (await client.ask(state, "/healthz", socket=socket, timeout=1.0)).status == 200

    def prepare() -> None:
        (state.root / socket).unlink(missing_ok=True)

    return Program(
        name=name,
        command=command,
        directory=state.root,
        stops=((signal.SIGTERM, 5.0),),
        leash=signal.SIGKILL,
        orphans=signal.SIGKILL,
        prepare=prepare,
        level=level_of,
        check=Check(is_well, misses=misses),
    )


def level_of(line: str) -> int | None:
    """Level that a line of our programs names, in JSON or in text; None for one that goes on, as in a traceback."""
    name: object = None
    if line.startswith("{"):
        try:
            name = json.loads(line).get("level")
        except ValueError:
            return None
    elif found := re.search(r"\b(DEBUG|INFO|WARNING|ERROR|CRITICAL)\b", line[:80]):
        name = found[1]
    return logging.getLevelNamesMapping().get(str(name).upper())
