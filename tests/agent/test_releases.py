from collections.abc import Callable

import pytest

from controller.agent import releases
from controller.agent.state import State
from controller.bundle import Bundle, BundleFile
from controller.pools import pools_of


def _numbers(state: State) -> list[str]:
    return sorted(path.name for path in state.releases.iterdir())


def test_release_holds_the_files_of_its_bundle(state: State, bundle: Callable[..., Bundle]) -> None:
    release = releases.write(state, bundle("a", "", BundleFile("tls/key.pem", b"key", secret=True)))
    assert release.path == "releases/000001"
    assert (release.directory / "tls/key.pem").read_bytes() == b"key"
    assert (release.directory / "tls/key.pem").stat().st_mode & 0o777 == 0o600


def test_switched_release_is_current(state: State, bundle: Callable[..., Bundle]) -> None:
    release = releases.write(state, bundle("a"))
    assert releases.current(state) is None
    releases.switch(state, release)
    assert releases.current(state) == release
    assert str(state.current.readlink()) == "releases/000001"


def test_release_that_lost_a_byte_is_not_current(state: State, bundle: Callable[..., Bundle]) -> None:
    release = releases.write(state, bundle("a"))
    releases.switch(state, release)
    (release.directory / "nginx.conf").write_bytes(b"")
    assert releases.current(state) is None


def test_numbers_go_on_after_the_highest(state: State, bundle: Callable[..., Bundle]) -> None:
    (state.releases / "000041").mkdir()
    assert releases.write(state, bundle("a")).number == 42


def test_pruning_keeps_the_newest_and_the_current(state: State, bundle: Callable[..., Bundle]) -> None:
    for version in "abcde":
        release = releases.write(state, bundle(version))
        if version == "a":
            releases.switch(state, release)
    releases.prune(state, keep=2)
    assert _numbers(state) == ["000001", "000004", "000005"]


def test_half_written_release_of_a_crash_is_removed(state: State, bundle: Callable[..., Bundle]) -> None:
    (state.releases / ".000001").mkdir()
    (state.releases / ".000001" / "nginx.conf").write_bytes(b"half")
    (state.releases / ".000007").mkdir()
    releases.write(state, bundle("a"))
    releases.prune(state, keep=2)
    assert _numbers(state) == ["000001"]


@pytest.mark.parametrize("path", ["/etc/passwd", "../nginx.conf", "a/../../b", ".", ".release"])
def test_file_outside_of_the_release_is_refused(path: str, state: State) -> None:
    with pytest.raises(ValueError, match="not a path inside"):
        releases.write(state, Bundle("shop/edge", "a", (BundleFile(path, b""),), pools_of(())))
