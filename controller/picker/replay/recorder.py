"""Writes a trace while the picker works, up to a number of bytes."""

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, TypeVar

from controller.completions import decode_completion, decode_first_byte
from controller.picker.answers import Outcome, Refusal
from controller.picker.endpoints import Endpoint
from controller.picker.replay.events import AnyEvent, Opened, Picked, Read, Served, Told, encoded
from controller.picker.requests import PickRequest
from controller.pools import Pool

log = logging.getLogger(__name__)

T = TypeVar("T")


class Recorder:
    """Turns what happens into lines. Ends for good when the file is full or cannot be written; the picker goes on."""

    def __init__(self, file: BinaryIO, *, limit: int, clock: Callable[[], float], opened: Opened) -> None:
        """`limit` is in bytes. The file is closed by the recorder."""
        self._file: BinaryIO | None = file
        self._left = limit
        self._clock = clock
        self._began = clock()
        self._looked = self._began
        self._write(opened)

    def pools(self, pools: Sequence[Pool]) -> None:
        """Other pools are served."""
        self._write(Served(at=self._now(), pools=tuple(pools)))

    def picked(self, request: PickRequest, picked: Sequence[Endpoint] | Refusal) -> None:
        """A request was picked for, or refused."""
        self._write(
            Picked(
                at=self._now(),
                id=request.id,
                pool=request.pool,
                outcome=picked.outcome.value if isinstance(picked, Refusal) else Outcome.PICKED.value,
                choice="" if isinstance(picked, Refusal) else picked[0].address,
                cached_bytes=request.cached_bytes,
                tried=tuple((one.address, one.failure) for one in request.tried),
                size=request.size,
                prompt_bytes=request.prompt_bytes,
                hashes=tuple(request.hashes),
                turn=request.turn,
                adapter=request.adapter,
                is_streamed=request.is_streamed,
                max_tokens=request.max_tokens,
            )
        )

    def began(self, lines: bytes) -> None:
        """NGINX told of first bytes, one JSON object a line."""
        self._write(Told(at=self._now(), begun=tuple(_readable(lines, decode_first_byte))))

    def ended(self, lines: bytes) -> None:
        """NGINX told of ends, one JSON object a line."""
        self._write(Told(at=self._now(), ended=tuple(_readable(lines, decode_completion))))

    def look(self, endpoints: Iterable[Endpoint]) -> None:
        """Note the readings that came since the last look, and give what was written to the system."""
        since, self._looked = self._looked, self._clock()
        for endpoint in endpoints:
            if since < endpoint.answered_at <= self._looked:
                self._write(
                    Read(
                        at=endpoint.answered_at - self._began,
                        address=endpoint.address,
                        name=endpoint.name,
                        reading=endpoint.reading,
                        own=endpoint.own_at_reading,
                    )
                )
        if self._file is not None:
            try:
                self._file.flush()
            except OSError as error:
                self._end(str(error))

    def close(self) -> None:
        """Write what is left."""
        self._end("")

    def _now(self) -> float:
        return self._clock() - self._began

    def _write(self, event: AnyEvent) -> None:
        if self._file is None:
            return
        line = encoded(event)
        if len(line) > self._left:
            self._end("the limit is reached")
            return
        self._left -= len(line)
        try:
            self._file.write(line)
        except OSError as error:
            self._end(str(error))

    def _end(self, reason: str) -> None:
        file, self._file = self._file, None
        if file is None:
            return
        if reason:
            log.warning("recording ended", extra={"reason": reason})
        try:
            file.close()
        except OSError as error:
            log.error("recording is cut off", extra={"reason": str(error)})


def _readable(lines: bytes, decode: Callable[[bytes], T]) -> Iterator[T]:
    """What the lines hold, without those that cannot be read."""
    for line in lines.splitlines():
        with contextlib.suppress(ValueError):
            yield decode(line)


def open_recorder(path: Path, *, limit: int, clock: Callable[[], float], opened: Opened) -> Recorder:
    """A recorder into a file, which begins anew and only the owner may read. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    return Recorder(os.fdopen(descriptor, "wb"), limit=limit, clock=clock, opened=opened)
