"""Says when files may have changed."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from watchfiles import awatch
from watchfiles._rust_notify import WatchfilesRustInternalError
from watchfiles.main import FileChange

log = logging.getLogger(__name__)

_QUIET = 20  # ms without another event after which writes count as complete
_LONGEST = 200  # ms after which a stream of events is reported though it goes on
_RETRY = (0.1, 2.0)  # seconds until a directory that is gone is looked for again: first, longest


@dataclass(frozen=True)
class Wake:
    """A reason to look."""

    detected_at: float
    """Seconds of the monotonic clock."""
    is_certain: bool
    """Whether the file system reported a change; else it is time to look for one that it did not report."""


class Watch:
    """Watches a directory with all below it, or one file by its directory, since editors replace files.

    Every `poll` seconds it wakes without an event: network file systems and targets of links report none.
    """

    def __init__(self, path: Path, *, poll: float) -> None:
        self._path = path
        self._poll = poll
        self._stop = asyncio.Event()
        self._woken = asyncio.Event()
        self._wake: Wake | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._follow(), name="watch files")
        await asyncio.sleep(0)  # lets the watch begin before anything is read, so that no change falls between
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def changed(self) -> Wake:
        """Waits for the next reason to look; those that came since the last call are one."""
        waiting = asyncio.create_task(self._woken.wait())
        try:
            await asyncio.wait({waiting, *([self._task] if self._task else [])}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if self._task is not None and self._task.done():
            self._task.result()
        self._woken.clear()
        wake, self._wake = self._wake, None
        return wake or Wake(asyncio.get_running_loop().time(), is_certain=False)

    def _report(self, *, is_certain: bool) -> None:
        if self._wake is None or (is_certain and not self._wake.is_certain):
            self._wake = Wake(asyncio.get_running_loop().time(), is_certain)
        self._woken.set()

    async def _follow(self) -> None:
        pause, longest = _RETRY
        is_told = False
        while True:
            directory = _directory_of(self._path)
            identity = _identity(directory)
            try:
                async with contextlib.aclosing(self._batches(directory)) as batches:
                    async for batch in batches:
                        pause = _RETRY[0]
                        self._report(is_certain=bool(batch))
                        if _directory_of(self._path) != directory or _identity(directory) != identity:
                            break
            except* FileNotFoundError:
                pass  # the directory is gone, or was at the start
            # Such as the limit of inotify, or a name that is no UTF-8. What comes with an event is in a group.
            except* (OSError, UnicodeEncodeError, WatchfilesRustInternalError) as group:
                if not is_told:
                    (error, *_) = group.exceptions
                    log.warning("cannot watch files, looking at them instead", extra={"reason": str(error)})
                is_told = True
                pause = longest
            await asyncio.sleep(pause)
            pause = min(pause * 2, longest)
            self._report(is_certain=True)

    def _batches(self, directory: Path) -> AsyncGenerator[set[FileChange], None]:
        return awatch(
            directory,
            watch_filter=None,
            debounce=_LONGEST,
            step=_QUIET,
            stop_event=self._stop,
            rust_timeout=int(self._poll * 1000),
            yield_on_timeout=True,
            recursive=directory == self._path,
            ignore_permission_denied=True,
        )


def _directory_of(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _identity(directory: Path) -> tuple[int, int] | None:
    try:
        status = directory.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino)
