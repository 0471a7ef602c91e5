import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

from controller.dataplane.certificates import Certificates, FileStore
from controller.dataplane.pki import CA_LIFETIME, SERVING_LIFETIME, Authority, Pair, make_ca
from controller.errors import StateUnusable

_START = datetime(2026, 3, 1, tzinfo=UTC)


class _Clock:
    def __init__(self) -> None:
        self.now = _START

    def __call__(self) -> datetime:
        return self.now


def _certificates(directory: Path, clock: _Clock) -> tuple[Certificates, list[Pair]]:
    used: list[Pair] = []
    return Certificates(FileStore(directory), ["localhost"], used.append, clock), used


async def test_first_look_makes_everything(tmp_path: Path) -> None:
    certificates, used = _certificates(tmp_path, _Clock())
    await certificates.look()
    assert len(used) == 1
    assert (tmp_path / "ca.crt").read_bytes().count(b"BEGIN CERTIFICATE") == 1
    assert (tmp_path / "authority.json").stat().st_mode & 0o777 == 0o600


async def test_certificate_is_renewed_by_the_same_authority(tmp_path: Path) -> None:
    clock = _Clock()
    certificates, used = _certificates(tmp_path, clock)
    await certificates.look()
    trusted = (tmp_path / "ca.crt").read_bytes()
    await certificates.look()
    assert len(used) == 1
    clock.now += 0.7 * SERVING_LIFETIME
    await certificates.look()
    assert len(used) == 2
    assert (tmp_path / "ca.crt").read_bytes() == trusted


async def test_both_authorities_are_trusted_during_a_rotation(tmp_path: Path) -> None:
    clock = _Clock()
    certificates, used = _certificates(tmp_path, clock)
    await certificates.look()
    first = (tmp_path / "ca.crt").read_bytes()
    clock.now += 0.7 * CA_LIFETIME
    await certificates.look()
    clock.now += timedelta(days=2)
    await certificates.look()
    assert first in (tmp_path / "ca.crt").read_bytes()
    assert (tmp_path / "ca.crt").read_bytes().count(b"BEGIN CERTIFICATE") == 2
    assert len(used) == 3


async def test_replicas_agree_on_one_authority(tmp_path: Path) -> None:
    one, _ = _certificates(tmp_path, _Clock())
    await one.look()
    kept = await FileStore(tmp_path).load()
    late = await FileStore(tmp_path).replace(None, Authority(make_ca(now=_START)))
    assert late == kept


async def test_store_that_fails_is_asked_again(tmp_path: Path) -> None:
    clock, asked = _Clock(), asyncio.Event()

    class Failing(FileStore):
        async def load(self) -> Authority | None:
            if clock.now == _START:
                clock.now += timedelta(seconds=1)
                raise StateUnusable("no")
            asked.set()
            return await super().load()

    used: list[Pair] = []
    certificates = Certificates(Failing(tmp_path), ["localhost"], used.append, clock)
    keeping = asyncio.create_task(certificates.keep(every=0.01))
    async with asyncio.timeout(5):
        await asked.wait()
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    assert clock.now > _START
