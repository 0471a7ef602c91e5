"""What the control plane hands to a data plane: the only thing that the agent knows of it.

A bundle has two parts with a life of their own. The *files* are one nginx configuration and change with a reload;
their digest is the version. The *pools* name the endpoints behind each InferencePool; they come and go without a
reload and carry an etag.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from controller.pools import Pools

VERSION_PATH: Final = "/infergate/version"
"""Asked on the control socket of nginx; the answer's body is the version of the worker that answered."""


@dataclass(frozen=True, order=True)
class BundleFile:
    """One file of a bundle."""

    path: str
    """Relative to the release directory, with `/`, without `..`."""
    content: bytes = field(repr=False)
    secret: bool = False
    """Written with mode 0600 and never shown."""


@dataclass(frozen=True)
class Bundle:
    """Everything that one data plane needs to serve one version."""

    gateway: str
    """`namespace/name` of the Gateway, or the name of the whole data plane where several share one nginx."""
    version: str
    """Digest of the files: 16 hexadecimal digits."""
    files: tuple[BundleFile, ...]
    """Sorted by path; among them `nginx.conf`."""
    pools: Pools


def version_of(files: Mapping[str, bytes]) -> str:
    """Digest of files by path: 16 hexadecimal digits, independent of the order they are given in."""
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path}\0{len(files[path])}\0".encode())
        digest.update(files[path])
    return digest.hexdigest()[:16]
