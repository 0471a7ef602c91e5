"""Resources from a directory of YAML and JSON files, or from one such file.

A directory may be a mounted ConfigMap: hidden entries are passed over and links are followed.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

from controller.errors import InputUnreadable
from controller.provider.base import Change
from controller.provider.changes import describe
from controller.provider.reader import Reader
from controller.provider.watch import Watch
from controller.resources.snapshot import Snapshot

log = logging.getLogger(__name__)


def read(directory: Path) -> Snapshot:
    """What a directory, or one file, holds. Blocks while it reads.

    Raises InputUnreadable when it does not exist or cannot be listed.
    """
    return Reader(directory).read()


class FileProvider:
    """Follows a directory, or one file.

    A change is seen within about 50 ms where the file system reports it, and within `poll` seconds elsewhere. When the
    directory vanishes, the last snapshot stays until it is back.
    """

    def __init__(self, directory: Path, *, poll: float = 2.0) -> None:
        self._directory = directory
        self._poll = poll

    async def snapshots(self) -> AsyncIterator[tuple[Snapshot, Change]]:
        """Raises InputUnreadable when the directory does not exist at the start."""
        async with Watch(self._directory, poll=self._poll) as watch:
            reader = Reader(self._directory)
            started = asyncio.get_running_loop().time()
            current = await asyncio.to_thread(reader.read)
            yield current, Change(sources=reader.changed, descriptions=(), detected_at=started)
            lost = False
            while True:
                wake = await watch.changed()
                try:
                    newer = await asyncio.to_thread(reader.read, unless_same=not wake.is_certain)
                except InputUnreadable as error:
                    if not lost:
                        log.warning("resources unreadable, the last ones stay", extra={"reason": str(error)})
                    lost = True
                    continue
                if lost:
                    log.info("resources readable again", extra={"path": str(self._directory)})
                lost = False
                if newer != current:
                    lines = describe(current, newer)
                    current = newer
                    yield current, Change(sources=reader.changed, descriptions=lines, detected_at=wake.detected_at)
