"""What a rendered file leaves to the machine that nginx runs on."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from controller.bundle import Bundle, BundleFile

_WORKERS: Final = re.compile(rb"^worker_processes auto;", re.MULTILINE)
_OPEN_FILES: Final = re.compile(rb"^worker_rlimit_nofile (\d+);", re.MULTILINE)


@dataclass(frozen=True)
class Machine:
    """The limits of a container. They are asked for each time: a container can be resized."""

    processors: Callable[[], int]
    """That this process may use."""
    open_files: Callable[[int], int]
    """That a worker may have, at most those that are wanted."""

    def fit(self, bundle: Bundle) -> Bundle:
        """A bundle for this machine.

        nginx's own `auto` counts the processors of the node, whatever share of them the container has; and to raise the
        number of open files beyond the hard limit is a right of root, so nginx would complain and go on with fewer.
        """
        return replace(bundle, files=tuple(map(self._fit, bundle.files)))

    def _fit(self, file: BundleFile) -> BundleFile:
        if file.path != "nginx.conf":
            return file
        content = _WORKERS.sub(lambda _: b"worker_processes %d;" % self.processors(), file.content)
        content = _OPEN_FILES.sub(lambda found: b"worker_rlimit_nofile %d;" % self.open_files(int(found[1])), content)
        return replace(file, content=content)
