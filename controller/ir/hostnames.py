"""How hostnames with wildcards relate. `*` is any host, a leading `*.` covers one or more labels."""

from collections.abc import Iterator

ANY = "*"


def covering(hostname: str) -> Iterator[str]:
    """Every pattern that covers a hostname (itself a pattern or not), the most specific first, `*` last.

    Source: Gateway API, HTTPRouteSpec.hostnames and Listener.hostname.
    """
    if hostname != ANY:
        yield hostname
        labels = hostname.removeprefix("*.").split(".")
        for start in range(1, len(labels)):
            yield "*." + ".".join(labels[start:])
    yield ANY
