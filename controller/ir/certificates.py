"""What TLS is ended with."""

from dataclasses import dataclass, field

from controller.resources.meta import Key


@dataclass(frozen=True)
class Certificate:
    """A chain with its key, as PEM."""

    source: Key
    chain: bytes = field(repr=False)
    key: bytes = field(repr=False)
