"""The runs so far. They are kept in a file, since all of them take hours and may be collected over several calls."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from tools.bench.failures import CannotMeasure
from tools.bench.picking.measure import Plan, Run

_MEASURED: Final = ("controller", "nginx", "templates", "tools/bench/picking")
"""What makes a difference to the figures, below the directory of the repository."""
_SUFFIXES: Final = frozenset({".py", ".js", ".conf", ".j2"})
_SHOWN_ONLY: Final = frozenset({"__main__.py", "comparison.py", "results.py"})
"""Modules of this package that only keep and show what was found."""


class _Document(msgspec.Struct, frozen=True):
    benchmark: str
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Results:
    """A file of runs, sorted by scenario, policy, seed and version; a run takes the place of one with the same."""

    path: Path

    def runs(self) -> tuple[Run, ...]:
        """None when there is no file. Raises CannotMeasure when it is not one of ours."""
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=_Document).runs
        except FileNotFoundError:
            return ()
        except msgspec.DecodeError as problem:
            raise CannotMeasure(f"{self.path}: {problem}; delete it to begin anew") from problem

    def add(self, run: Run) -> None:
        """Writes the file, and makes its directory."""
        kept = {_key(each): each for each in self.runs()} | {_key(run): run}
        document = _Document("picking", tuple(kept[key] for key in sorted(kept)))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # A call that is interrupted while it writes must not lose hours.
        draft = self.path.with_suffix(".part")
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
        draft.replace(self.path)


def is_done(plan: Plan, runs: Iterable[Run], *, version: str) -> bool:
    """Whether there is a run of the plan by this code that means something."""
    wanted = (plan.scenario, plan.policy, plan.seed, version)
    return any(_key(run) == wanted and not run.strain for run in runs)


def of_version(runs: Sequence[Run], version: str | None) -> tuple[Run, ...]:
    """Runs by one version of the code. None takes all versions, and of each plan the last run."""
    if version is not None:
        return tuple(run for run in runs if run.version == version)
    newest = {(run.scenario, run.policy, run.seed): run for run in sorted(runs, key=lambda run: run.time)}
    return tuple(newest.values())


def code_version(root: Path) -> str:
    """Ten digits that differ when the code below a directory does that is measured, or that measures."""
    digest = hashlib.sha256()
    for path in sorted(path for part in _MEASURED for path in (root / part).rglob("*")):
        if path.suffix in _SUFFIXES and not (path.parent.name == "picking" and path.name in _SHOWN_ONLY):
            digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:10]


def _key(run: Run) -> tuple[str, str, int, str]:
    return run.scenario, run.policy, run.seed, run.version
