"""What following a directory gives."""

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.errors import InputUnreadable
from controller.provider.base import Change, Provider
from controller.provider.file import FileProvider
from controller.resources.core import ConfigMap
from controller.resources.snapshot import Snapshot

Snapshots = AsyncIterator[tuple[Snapshot, Change]]


def text(name: str, value: str = "a") -> str:
    return f"---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{key: {value}}}\n"


def names(snapshot: Snapshot) -> list[str]:
    return [each.metadata.name for each in snapshot.of(ConfigMap)]


@contextlib.asynccontextmanager
async def following(path: Path, *, poll: float = 30.0) -> AsyncIterator[Snapshots]:
    provider: Provider = FileProvider(path, poll=poll)
    snapshots = provider.snapshots()
    try:
        yield snapshots
    finally:
        await snapshots.aclose()  # type: ignore[attr-defined]  # it is an async generator


async def following_one(snapshots: Snapshots) -> tuple[Snapshot, Change]:
    return await asyncio.wait_for(anext(snapshots), timeout=10)


async def test_first_snapshot_comes_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text("a"))

    async with following(tmp_path) as snapshots:
        snapshot, change = await following_one(snapshots)

    assert names(snapshot) == ["a"]
    assert (change.sources, change.descriptions) == (("a.yaml",), ())


async def test_missing_directory_is_unreadable_at_the_start(tmp_path: Path) -> None:
    async with following(tmp_path / "missing") as snapshots:
        with pytest.raises(InputUnreadable, match="does not exist"):
            await following_one(snapshots)


async def test_saved_file_is_seen_at_once_and_told(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text("a"))
    (tmp_path / "b.yaml").write_text(text("b"))

    async with following(tmp_path) as snapshots:
        await following_one(snapshots)
        saved = asyncio.get_running_loop().time()
        (tmp_path / "a.yaml").write_text(text("a", "b"))
        _, change = await following_one(snapshots)

    assert change.sources == ("a.yaml",)
    assert change.descriptions == ('ConfigMap default/a: data.key "a" -> "b"',)
    assert 0 <= change.detected_at - saved < 2  # 20 to 40 ms on a machine with nothing else to do


async def test_file_replaced_by_an_editor_is_seen(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text("a"))

    async with following(tmp_path / "a.yaml") as snapshots:
        await following_one(snapshots)
        (tmp_path / "new").write_text(text("b"))
        (tmp_path / "new").rename(tmp_path / "a.yaml")
        snapshot, _ = await following_one(snapshots)

    assert names(snapshot) == ["b"]


async def test_writes_while_nobody_looks_are_one_change(tmp_path: Path) -> None:
    async with following(tmp_path) as snapshots:
        await following_one(snapshots)
        for number in range(20):
            (tmp_path / f"{number}.yaml").write_text(text(f"n{number}"))
        (tmp_path / "last.yaml").write_text(text("last"))
        snapshot, change = await following_one(snapshots)
        while len(names(snapshot)) < 21:  # a slow machine may cut it in two
            snapshot, change = await following_one(snapshots)

    assert "+ ConfigMap default/last" in change.descriptions or len(change.descriptions) == 11


async def test_mounted_config_map_that_is_swapped_is_seen(tmp_path: Path) -> None:
    for version in ("1", "2"):
        (tmp_path / f"..{version}").mkdir()
        (tmp_path / f"..{version}" / "a.yaml").write_text(text("a", version))
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")

    async with following(tmp_path) as snapshots:
        await following_one(snapshots)
        (tmp_path / "..data_tmp").symlink_to("..2")
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")
        _, change = await following_one(snapshots)

    assert change.descriptions == ("ConfigMap default/a: data.key 1 -> 2",) or change.sources == ("a.yaml",)


async def test_target_of_a_link_is_looked_at_now_and_then(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "elsewhere" / "a.yaml").write_text(text("a"))
    (tmp_path / "here" / "a.yaml").symlink_to(tmp_path / "elsewhere" / "a.yaml")

    async with following(tmp_path / "here", poll=0.1) as snapshots:
        await following_one(snapshots)
        (tmp_path / "elsewhere" / "a.yaml").write_text(text("another"))
        snapshot, _ = await following_one(snapshots)

    assert names(snapshot) == ["another"]


async def test_last_snapshot_stays_while_the_directory_is_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "resources"
    directory.mkdir()
    (directory / "a.yaml").write_text(text("a"))

    async with following(directory) as snapshots:
        await following_one(snapshots)
        directory.rename(tmp_path / "away")
        waiting = asyncio.ensure_future(anext(snapshots))
        while "resources unreadable, the last ones stay" not in caplog.messages:
            done, _ = await asyncio.wait({waiting}, timeout=0.05)
            assert not done
        shutil.copytree(tmp_path / "away", directory)
        (directory / "b.yaml").write_text(text("b"))
        snapshot, _ = await asyncio.wait_for(waiting, timeout=10)
        while names(snapshot) != ["a", "b"]:
            snapshot, _ = await following_one(snapshots)
        (directory / "c.yaml").write_text(text("c"))
        snapshot, _ = await following_one(snapshots)

    assert names(snapshot) == ["a", "b", "c"]
    assert caplog.messages.count("resources unreadable, the last ones stay") == 1


async def test_save_without_a_difference_is_no_change(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text("a"))

    async with following(tmp_path) as snapshots:
        await following_one(snapshots)
        (tmp_path / "a.yaml").write_text(text("a"))
        (tmp_path / "notes.txt").write_text("text")
        waiting = asyncio.ensure_future(anext(snapshots))
        await asyncio.wait({waiting}, timeout=0.3)
        assert not waiting.done()
        (tmp_path / "a.yaml").write_text(text("b"))
        snapshot, _ = await asyncio.wait_for(waiting, timeout=10)

    assert names(snapshot) == ["b"]


async def test_following_ends_when_it_is_cancelled(tmp_path: Path) -> None:
    async def follow() -> None:
        async with following(tmp_path) as snapshots:
            async for _ in snapshots:
                started.set()

    started = asyncio.Event()
    task = asyncio.create_task(follow())
    await asyncio.wait_for(started.wait(), timeout=10)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, timeout=10)


async def test_file_whose_name_is_not_utf_8_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.yaml").write_text(text("a"))
    async with following(tmp_path) as snapshots:
        await following_one(snapshots)

        (tmp_path / os.fsdecode(b"caf\xe9.yaml")).write_text(text("b"))
        seen = [await following_one(snapshots)]
        (tmp_path / "c.yaml").write_text(text("c"))
        while names(seen[-1][0]) != ["a", "b", "c"]:
            seen.append(await following_one(snapshots))

    assert "cannot watch files, looking at them instead" in caplog.text


async def test_directory_whose_name_is_not_utf_8_is_followed(tmp_path: Path) -> None:
    directory = tmp_path / os.fsdecode(b"caf\xe9")
    directory.mkdir()
    (directory / "a.yaml").write_text(text("a"))
    async with following(directory) as snapshots:
        await following_one(snapshots)
        (directory / "b.yaml").write_text(text("b"))
        snapshot, _ = await following_one(snapshots)

    assert names(snapshot) == ["a", "b"]
