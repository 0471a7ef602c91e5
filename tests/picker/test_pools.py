from pathlib import Path

import pytest

from controller.picker.pools import PoolsFile
from controller.pools import Pool, PoolEndpoint, encode_pools, pools_of

from .conftest import Picker


def write(path: Path, *names: str) -> None:
    """Replace the file as the agent does."""
    endpoints = tuple(PoolEndpoint(address=f"{name}:8000", name=f"llm/{name}", uid="1") for name in names)
    fresh = path.with_suffix(".new")
    fresh.write_bytes(encode_pools(pools_of((Pool(name="llm/gpu", endpoints=endpoints),))))
    fresh.rename(path)


def served(picker: Picker) -> list[str]:
    pool = picker.table.pools.get("llm/gpu")
    return [endpoint.name for endpoint in pool.endpoints] if pool else []


def test_file_is_followed(picker: Picker, tmp_path: Path) -> None:
    file = PoolsFile(tmp_path / "pools.json", picker.table)
    assert not file.refresh()
    for names in ("a", "ab", "b", ""):
        write(tmp_path / "pools.json", *names)
        assert file.refresh()
        assert served(picker) == [f"llm/{name}" for name in names]
        assert not file.refresh()
    assert file.errors == 0


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"etag":1,"pools":[]}'])
def test_unreadable_file_keeps_the_last_pools(picker: Picker, tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "pools.json"
    file = PoolsFile(path, picker.table)
    write(path, "a")
    file.refresh()
    path.write_bytes(text)
    for _ in range(3):
        assert not file.refresh()
    assert (served(picker), file.errors) == (["llm/a"], 1)
    write(path, "b")
    assert file.refresh()


def test_file_that_disappears_keeps_the_last_pools(picker: Picker, tmp_path: Path) -> None:
    path = tmp_path / "pools.json"
    file = PoolsFile(path, picker.table)
    write(path, "a")
    file.refresh()
    path.unlink()
    for _ in range(3):
        file.refresh()
    assert (served(picker), file.errors) == (["llm/a"], 1)


def test_counts_survive_a_change_of_the_file(picker: Picker, tmp_path: Path) -> None:
    path = tmp_path / "pools.json"
    file = PoolsFile(path, picker.table)
    write(path, "a")
    file.refresh()
    picker.pick("1")
    write(path, "a", "b")
    file.refresh()
    assert (picker.count("a"), picker.count("b")) == (1, 0)


def test_endpoint_of_two_pools_is_counted_once(picker: Picker) -> None:
    endpoint = PoolEndpoint(address="a:8000", name="llm/a", uid="1")
    picker.table.apply(pools_of((Pool(name="llm/x", endpoints=(endpoint,)), Pool(name="llm/y", endpoints=(endpoint,)))))
    picker.pick("1", pool="llm/x")
    picker.pick("2", pool="llm/y")
    assert picker.count("a") == 2
