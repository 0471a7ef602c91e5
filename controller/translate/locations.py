"""Divides the cases of a server among locations, so that nginx finds the few that can hold by the path alone."""

from collections.abc import Iterable, Sequence

from controller.ir.types import Case, Location, PathKind, is_unconditional


def locations_of(cases: Sequence[Case]) -> tuple[Location, ...]:
    """Locations for cases in order of precedence, sorted by path.

    A prefix `/a` holds for `/a` and for all below `/a/`, so it makes one exact location and one for what is below.
    """
    exact = {case.match.path.value for case in cases if case.match.path.kind is not PathKind.REGEX}
    # nginx redirects from `/a` to a location of the path `/a/` that proxies, unless `/a` has a location of its own.
    exact = (exact | {path.removesuffix("/") for path in exact}) - {""}
    below = {case.match.path.value for case in cases if case.match.path.kind is PathKind.PREFIX}
    if any(case.match.path.kind is PathKind.REGEX for case in cases):
        below.add("")
    index = _Index(cases)
    found = [Location(path=path, is_exact=True, cases=_reachable(index.holding_at(path))) for path in exact]
    found += [Location(path=path + "/", is_exact=False, cases=_reachable(index.holding_below(path))) for path in below]
    return tuple(sorted(found, key=lambda location: (location.path, not location.is_exact)))


def _reachable(cases: Iterable[Case]) -> tuple[Case, ...]:
    """Cases up to the first that always holds: none behind it is ever asked."""
    found: list[Case] = []
    for case in cases:
        found.append(case)
        if is_unconditional(case.match):
            break
    return tuple(found)


class _Index:
    """Cases by path, so that a location with a thousand siblings costs what its depth costs."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self._exact: dict[str, list[int]] = {}
        self._prefix: dict[str, list[int]] = {}
        self._regex: list[int] = []
        self._cases = cases
        for position, case in enumerate(cases):
            path = case.match.path
            if path.kind is PathKind.REGEX:
                self._regex.append(position)
            else:
                table = self._exact if path.kind is PathKind.EXACT else self._prefix
                table.setdefault(path.value, []).append(position)

    def holding_at(self, path: str) -> Iterable[Case]:
        """Cases that can hold for exactly this path, in order of precedence."""
        return self._ordered([*self._exact.get(path, ()), *self._prefixes(path), *self._regex])

    def holding_below(self, path: str) -> Iterable[Case]:
        """Cases that can hold for every path below `path` + `/`, in order of precedence."""
        return self._ordered([*self._prefixes(path), *self._regex])

    def _prefixes(self, path: str) -> Iterable[int]:
        while path:
            yield from self._prefix.get(path, ())
            path = path.rpartition("/")[0]
        yield from self._prefix.get("", ())

    def _ordered(self, positions: list[int]) -> Iterable[Case]:
        return (self._cases[position] for position in sorted(positions))
