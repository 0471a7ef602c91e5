"""How long picks took, from the histogram that the picker keeps."""

import http.client
import math
import os
import socket
from collections import Counter
from pathlib import Path
from typing import Final

from controller.picker.durations import PICK_SECONDS
from tools.bench.failures import CannotMeasure

_NAME: Final = "infergate_scheduler_e2e_duration_seconds_bucket"
PickTimes = Counter[float]
"""Picks by the upper bound of what they took, in seconds."""


def pick_times(picker: Path) -> PickTimes:
    """All picks so far of the picker behind a socket. Raises CannotMeasure when it does not tell."""
    found = parse(_page(picker))
    if not found:
        raise CannotMeasure(f"the picker at {picker} tells no {_NAME}")
    return found


def parse(page: str) -> PickTimes:
    """The buckets of a page of metrics, each without those below it."""
    bounds = {}
    for line in page.splitlines():
        if line.startswith(_NAME):
            bounds[float(line.partition('le="')[2].partition('"')[0])] = int(float(line.split()[-1]))
    before = 0
    found = PickTimes()
    for bound, count in sorted(bounds.items()):
        found[bound] = count - before
        before = count
    return found


def within(times: PickTimes, share: float) -> float | None:
    """Seconds within which a share in (0, 1] of the picks were made, even within a bucket; None without picks.

    Of those above the last bound all that is told is the bound.
    """
    left = share * times.total()
    for bound, count in sorted(times.items()):
        if count and left <= count:
            # A difference has no buckets without picks, so the one before may be missing.
            low = max((one for one in PICK_SECONDS if one < bound), default=0.0)
            return low if math.isinf(bound) else low + (bound - low) * left / count
        left -= count
    return None


def _page(picker: Path) -> str:
    connection = http.client.HTTPConnection("picker", timeout=10)
    connection.sock = socket.socket(socket.AF_UNIX)
    # A socket's address holds 108 bytes; by the descriptor of its directory it is short wherever that is.
    directory = os.open(picker.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        connection.sock.connect(f"/proc/self/fd/{directory}/{picker.name}")
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    except (OSError, http.client.HTTPException) as error:
        raise CannotMeasure(f"the picker at {picker} does not answer") from error
    finally:
        os.close(directory)
        connection.close()
