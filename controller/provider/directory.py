"""Files of a directory and their text. Everything here blocks."""

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from controller.errors import InputUnreadable
from controller.resources.snapshot import Rejection

SUFFIXES = (".yaml", ".yml", ".json")

_LARGEST = 64 * 1024 * 1024  # bytes of one file: 100,000 routes are 60 MB
_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)  # a link that leads nowhere, or what is gone since it was listed
_ATTEMPTS = 5  # readings of a file that is written meanwhile; the next event brings the rest

Signature = tuple[tuple[str, int, int, int], ...]
"""(name, inode, time of the last change in ns, bytes) of each file."""


@dataclass(frozen=True)
class Files:
    """Text of each file, and what could not be read."""

    texts: dict[str, str]
    """By path relative to the directory, sorted; a byte that is not UTF-8 is a lone surrogate."""
    rejections: tuple[Rejection, ...]


def signature(root: Path) -> Signature:
    """What tells most changes without reading.

    Raises InputUnreadable when the directory does not exist or cannot be listed.
    """
    listing = _list(root)
    return tuple((name, each.st_ino, each.st_mtime_ns, each.st_size) for name, (_, each) in listing.files.items())


def read_files(root: Path) -> Files:
    """Every file of a directory that is meant to be read, or the one file that is named.

    Raises InputUnreadable when the directory does not exist or cannot be listed.
    """
    listing = _list(root)
    texts: dict[str, str] = {}
    rejections = list(listing.rejections)
    for name, (path, status) in listing.files.items():
        if status.st_size > _LARGEST:
            message = f"has {status.st_size} bytes, accepted are at most {_LARGEST}"
            rejections.append(Rejection(name, "file", "", message))
            continue
        try:
            texts[name] = _text(path)
        except FileNotFoundError:
            continue  # gone since it was listed
        except OSError as error:
            rejections.append(Rejection(name, "file", "", f"cannot be read: {_reason(error)}"))
    return Files(texts, tuple(sorted(rejections)))


@dataclass(frozen=True)
class _Listing:
    files: dict[str, tuple[str, os.stat_result]]
    rejections: tuple[Rejection, ...]


def _list(root: Path) -> _Listing:
    try:
        status = root.stat()
        if stat.S_ISREG(status.st_mode):
            return _Listing({root.name: (str(root), status)}, ())
        entries = _sorted_entries(str(root))
    except FileNotFoundError as error:
        raise InputUnreadable(f"{root} does not exist") from error
    except OSError as error:
        raise InputUnreadable(f"{root} cannot be read: {_reason(error)}") from error
    files: dict[str, tuple[str, os.stat_result]] = {}
    rejections: list[Rejection] = []
    seen = {(status.st_dev, status.st_ino)}
    for name, path, item in _walk(entries, prefix="", seen=seen, rejections=rejections):
        files[name] = (path, item)
    return _Listing(dict(sorted(files.items())), tuple(rejections))


def _walk(
    entries: list[os.DirEntry[str]], *, prefix: str, seen: set[tuple[int, int]], rejections: list[Rejection]
) -> Iterator[tuple[str, str, os.stat_result]]:
    """(relative path, path, status) of each file; each file and directory once, however many links lead to it."""
    for entry in entries:
        name = f"{prefix}{entry.name}"
        try:
            status = entry.stat()
        except OSError as error:
            if error.errno not in _NOWHERE:
                rejections.append(Rejection(name, "link", "", f"cannot be followed: {_reason(error)}"))
            continue
        identity = (status.st_dev, status.st_ino)
        is_directory = stat.S_ISDIR(status.st_mode)
        is_file = stat.S_ISREG(status.st_mode) and entry.name.endswith(SUFFIXES)
        if identity in seen or not (is_directory or is_file):
            continue
        seen.add(identity)
        if is_file:
            yield name, entry.path, status
            continue
        try:
            inner = _sorted_entries(entry.path)
        except FileNotFoundError:
            continue
        except OSError as error:
            rejections.append(Rejection(name, "directory", "", f"cannot be read: {_reason(error)}"))
            continue
        yield from _walk(inner, prefix=f"{name}/", seen=seen, rejections=rejections)


def _sorted_entries(path: str) -> list[os.DirEntry[str]]:
    """Entries of a directory that are not hidden and are not an editor's backup."""
    with os.scandir(path) as entries:
        return sorted((each for each in entries if not each.name.startswith((".", "#"))), key=lambda each: each.name)


def _text(path: str) -> str:
    """Text of a file, as it was at one moment if it is not written all the time."""
    for _ in range(_ATTEMPTS):
        with Path(path).open("rb") as file:
            before = os.fstat(file.fileno())
            content = file.read()
            after = os.fstat(file.fileno())
        if (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size) and len(content) == after.st_size:
            break
    return content.decode("utf-8", errors="surrogateescape").removeprefix("\ufeff")


def _reason(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()
