"""Releases: the files of a bundle in numbered directories, one of which is current.

A release is complete from the moment it has its number, and says in one file of its own which version it is. Numbers
only grow, also across restarts, so that what an operator notes down stays true.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from controller.agent.state import State, write_file
from controller.bundle import Bundle, version_of
from controller.errors import StateUnusable

_STAMP: Final = ".release"
"""Version of a release and digest of its files, one a line."""


@dataclass(frozen=True)
class Release:
    """A complete release on disk."""

    number: int
    version: str
    directory: Path

    @property
    def path(self) -> str:
        """Relative to the state directory."""
        return f"releases/{self.directory.name}"


def write(state: State, bundle: Bundle) -> Release:
    """A release that holds the files of a bundle; it is not current yet.

    Blocks until the files are on disk. Raises StateUnusable when they cannot be written, and ValueError when a file of
    the bundle leaves its directory.
    """
    number = _last_number(state) + 1
    draft = state.releases / f".{number:06d}"
    directory = state.releases / f"{number:06d}"
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        for file in bundle.files:
            target = draft / _checked(file.path)
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_file(target, file.content, mode=0o600 if file.secret else 0o644)
        digest = version_of({file.path: file.content for file in bundle.files})
        write_file(draft / _STAMP, f"{bundle.version}\n{digest}\n".encode(), mode=0o644)
        draft.rename(directory)
        _sync_directory(state.releases)
    except OSError as error:
        raise StateUnusable(f"release {directory} cannot be written: {error.strerror}") from error
    return Release(number, bundle.version, directory)


def current(state: State) -> Release | None:
    """The release that `current` leads to; None when there is none, or it is not as it was written.

    Blocks while it reads every file of the release.
    """
    try:
        directory = state.releases / state.current.readlink().name
        version, digest = (directory / _STAMP).read_text().split()
        number = int(directory.name)
        files = {
            path.relative_to(directory).as_posix(): path.read_bytes()
            for path in directory.rglob("*")
            if path.is_file() and path.name != _STAMP
        }
    except (OSError, ValueError):
        return None
    return Release(number, version, directory) if version_of(files) == digest else None


def switch(state: State, release: Release | None) -> None:
    """Make a release the current one, in one step that a reader cannot see the middle of; None takes the link away.

    Raises StateUnusable when the link cannot be written.
    """
    draft = state.root / ".current.draft"
    try:
        if release is None:
            state.current.unlink(missing_ok=True)
        else:
            draft.unlink(missing_ok=True)
            draft.symlink_to(release.path)
            draft.replace(state.current)
        _sync_directory(state.root)
    except OSError as error:
        raise StateUnusable(f"{state.current} cannot be switched: {error.strerror}") from error


def prune(state: State, *, keep: int) -> None:
    """Remove all but the newest `keep` releases and the current one, and what a crash left half written.

    nginx reads a release only while it loads, so old workers miss nothing. What cannot be removed stays for next time.
    """
    link = state.current.readlink().name if state.current.is_symlink() else ""
    numbered = _numbered(state)
    stale = [path for path in numbered[: max(len(numbered) - keep, 0)] if path.name != link]
    drafts = [path for path in state.releases.iterdir() if path.name.startswith(".")]
    for path in (*stale, *drafts):
        shutil.rmtree(path, ignore_errors=True)


def _checked(path: str) -> PurePosixPath:
    checked = PurePosixPath(path)
    if checked.is_absolute() or ".." in checked.parts or checked.parts in ((), (_STAMP,)):
        raise ValueError(f"bundle file {path!r} is not a path inside a release")
    return checked


def _last_number(state: State) -> int:
    """The highest number in use, that of a dangling `current` included; 0 when there is none."""
    link = state.current.readlink().name if state.current.is_symlink() else ""
    return max([int(path.name) for path in _numbered(state)] + [int(link) if link.isdecimal() else 0])


def _numbered(state: State) -> list[Path]:
    return sorted((path for path in state.releases.iterdir() if path.name.isdecimal()), key=lambda path: int(path.name))


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
