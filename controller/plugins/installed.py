"""Plugins of third parties: objects that installed packages name in the entry point group `infergate.plugins`."""

from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, Protocol

from pydantic import BaseModel

from controller.plugins.catalogue import BUILT_IN, SCHEDULING_KINDS, Catalogue, Kind, Model, Plugin
from controller.plugins.problems import quoted

GROUP: Final = "infergate.plugins"


class ThirdParty(Protocol):
    """What an entry point leads to; a class or a module will do. The name of the entry point is the type."""

    type: str
    kind: str
    """`filter`, `scorer` or `picker`."""
    Parameters: Model

    def build(self, parameters: Any, surroundings: Any) -> object:
        """The part of a profile. Any: an instance of `Parameters`, and what the picker gives to all its parts."""
        ...


def installed(found: Iterable[EntryPoint] | None = None) -> Catalogue:
    """The catalogue with the plugins of installed packages, read and imported anew. Blocks while it imports.

    found: entry points to take instead of those of the installed packages. A plugin that cannot be used is in `broken`.
    """
    plugins: dict[str, Plugin] = {}
    broken: dict[str, str] = {}
    for point in sorted(entry_points(group=GROUP) if found is None else found, key=lambda item: item.name):
        try:
            if point.name in BUILT_IN.by_name:
                raise ValueError("the type is one of Infergate's own")
            if point.name in plugins or point.name in broken:
                raise ValueError("two packages bring this type")
            plugins[point.name] = _plugin(point.load(), type_=point.name)
        except Exception as error:  # code of others, which may fail in any way: a report instead of no gateway
            plugins.pop(point.name, None)
            broken[point.name] = f"{point.value}: {type(error).__name__}: {error}"
    return Catalogue((*BUILT_IN.plugins, *plugins.values()), broken)


def _plugin(found: ThirdParty, *, type_: str) -> Plugin:
    """Raises AttributeError, TypeError or ValueError when it is not what an entry point should lead to."""
    if found.type != type_:
        raise ValueError(f"type: found {quoted(found.type)}, accepted is the name of the entry point")
    kinds = [kind.value for kind in SCHEDULING_KINDS]
    if found.kind not in kinds:
        raise ValueError(f"kind: found {quoted(found.kind)}, accepted is {', '.join(kinds)}")
    if not (isinstance(found.Parameters, type) and issubclass(found.Parameters, BaseModel)):
        raise TypeError("Parameters: accepted is a pydantic model")
    if not callable(found.build):
        raise TypeError("build: accepted is a function")
    summary = (getattr(found, "__doc__", None) or "").strip().partition("\n")[0]
    return Plugin(type_, (Kind(found.kind),), summary, found.Parameters, build=found.build)
