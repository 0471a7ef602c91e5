"""Which of several matches that hold serves a request."""

from controller.ir.types import Match, PathKind

_PATH_ORDER = {PathKind.EXACT: 0, PathKind.REGEX: 1, PathKind.PREFIX: 2}


def precedence(match: Match) -> tuple[int, int, int, int, int]:
    """Sorts matches, the one that wins first.

    An exact path is above a prefix, a longer prefix above a shorter one, then a method above none, more headers above
    fewer, more query parameters above fewer. The specification leaves regular expressions to the implementation: they
    stand between exact paths and prefixes, the longer expression first, so that a prefix `/` does not hide them.

    A call of gRPC with more characters of a service comes before one with fewer, then of a method, then more headers;
    regular expressions come after names.

    Source: Gateway API, HTTPRouteRule.matches and GRPCRouteRule.matches.
    """
    if match.call is not None:
        kind, service, method = match.call
        return (kind, -service, -method, -len(match.headers), 0)
    return (
        _PATH_ORDER[match.path.kind],
        -len(match.path.value),
        match.method is None,
        -len(match.headers),
        -len(match.query),
    )
