"""Which of several matches that hold serves a request."""

from controller.ir.types import Match, PathKind

_PATH_ORDER = {PathKind.EXACT: 0, PathKind.REGEX: 1, PathKind.PREFIX: 2}


def precedence(match: Match) -> tuple[int, int, bool, int, int]:
    """Sorts matches, the one that wins first.

    An exact path is above a prefix, a longer prefix above a shorter one, then a method above none, more headers above
    fewer, more query parameters above fewer. The specification leaves regular expressions to the implementation: they
    stand between exact paths and prefixes, the longer expression first, so that a prefix `/` does not hide them.

    Source: Gateway API, HTTPRouteRule.matches.
    """
    return (
        _PATH_ORDER[match.path.kind],
        -len(match.path.value),
        match.method is None,
        -len(match.headers),
        -len(match.query),
    )
