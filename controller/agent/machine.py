"""What a rendered file leaves to the machine that nginx runs on."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from controller.bundle import Bundle, BundleFile

_AUTO: Final = re.compile(rb"^worker_processes auto;", re.MULTILINE)


def fitted(bundle: Bundle, processors: Callable[[], int]) -> Bundle:
    """A bundle whose `worker_processes auto` is the number of processors that this process may use.

    nginx's own `auto` counts those of the node, whatever share of them the container has. The number is asked for anew
    each time: a container can be resized.
    """
    return replace(bundle, files=tuple(_fitted(file, processors) for file in bundle.files))


def _fitted(file: BundleFile, processors: Callable[[], int]) -> BundleFile:
    if file.path != "nginx.conf":
        return file
    count = b"worker_processes %d;" % processors()
    return replace(file, content=_AUTO.sub(lambda _: count, file.content))
