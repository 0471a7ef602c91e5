"""The image as processes: `python -m tools.image_table` prints which program stands for it.

For clusters whose pods are processes of this machine, which find the programs of images in a table: a regular
expression of the image's name, and what the image itself would set. Everything is mounted at places of its own, where
no volume of a pod hides it and no account is kept out.
"""

import json
import sys
import sysconfig
from pathlib import Path
from typing import Final

_SOURCE: Final = Path(__file__).parent.parent
_PLACES: Final = {
    "/opt/infergate/python": Path(sys.base_prefix),
    "/opt/infergate/packages": Path(sysconfig.get_path("purelib")),
    "/opt/infergate/source": _SOURCE,
}
_ENVIRONMENT: Final = {
    "LD_LIBRARY_PATH": "/opt/infergate/python/lib",
    "PYTHONPATH": "/opt/infergate/source:/opt/infergate/packages",
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "INFERGATE_LOG_FORMAT": "json",
    "HOME": "/var/lib/infergate",
}
"""As in the Dockerfile, and where Python is."""


def table() -> dict[str, object]:
    """One entry. The interpreter, its packages and the sources are those that run this."""
    python = f"/opt/infergate/python/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    image = {
        "argv": [python, "-m", "controller"],
        "env": _ENVIRONMENT,
        "cwd": "/",
        "user": 10001,
        "mounts": {place: str(path.resolve()) for place, path in _PLACES.items()},
    }
    return {"(^|/)infergate[:@]": image}


if __name__ == "__main__":
    print(json.dumps(table(), indent=2))
