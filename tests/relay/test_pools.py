"""What the relay knows of pools, from the file that the agent writes."""

from pathlib import Path

from controller.pools import ExternalPicker, Pool, PoolEndpoint, encode_pools, pools_of
from controller.relay.pools import LEAVING, PoolTable


def _write(path: Path, *addresses: str, pool: str = "llm/gpu") -> None:
    picker = ExternalPicker(authority="picker.llm.svc:9002", addresses=("10.0.0.9:9002",))
    endpoints = tuple(PoolEndpoint(address, address) for address in addresses)
    draft = path.with_suffix(".part")
    draft.write_bytes(encode_pools(pools_of((Pool(name=pool, endpoints=endpoints, external=picker),))))
    draft.replace(path)


def test_endpoint_that_left_its_pool_may_be_named_for_some_seconds(tmp_path: Path) -> None:
    now = 0.0
    table = PoolTable(tmp_path / "pools.json", clock=lambda: now)
    _write(tmp_path / "pools.json", "10.0.0.1:8000", "10.0.0.2:8000")
    assert table.look()
    assert table.leaving("llm/gpu") == []

    _write(tmp_path / "pools.json", "10.0.0.2:8000")
    assert table.look()
    assert table.leaving("llm/gpu") == ["10.0.0.1:8000"]
    assert table.leaving("llm/other") == []

    now = LEAVING
    assert table.leaving("llm/gpu") == []


def test_endpoints_of_a_pool_that_is_gone_may_not_be_named(tmp_path: Path) -> None:
    table = PoolTable(tmp_path / "pools.json", clock=lambda: 0.0)
    _write(tmp_path / "pools.json", "10.0.0.1:8000")
    assert table.look()
    _write(tmp_path / "pools.json", "10.0.0.1:8000", pool="llm/other")
    assert table.look()

    assert table.leaving("llm/gpu") == []
