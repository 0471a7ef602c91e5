"""What is different between two snapshots, in words for a log."""

from collections.abc import Iterator
from typing import Any

from controller.resources.core import Pod, Secret
from controller.resources.meta import Key, Resource
from controller.resources.problems import field_path
from controller.resources.scalars import Location, quoted
from controller.resources.snapshot import Snapshot

_MOST = 10  # lines of one description: what is longer is not read
_LONGEST = 40  # characters of a value in a line


def describe(old: Snapshot, new: Snapshot) -> tuple[str, ...]:
    """Lines such as `+ Pod demo/x` or `HTTPRoute demo/chat: spec.rules[0].timeouts.request "1s" -> "2s"`.

    In the order of kind, namespace and name; at most ten, then `and N more`. Values of Secrets are not shown.
    """
    lines: list[str] = []
    more = 0
    for line in _lines(old, new):
        if len(lines) < _MOST:
            lines.append(line)
        else:
            more += 1
    return (*lines, f"and {more} more") if more else tuple(lines)


def _lines(old: Snapshot, new: Snapshot) -> Iterator[str]:
    was = {id(item): item for item in old.resources}
    still = {id(item) for item in new.resources if id(item) in was}
    before = {item.key: item for item in old.resources if id(item) not in still}
    after = {item.key: item for item in new.resources if id(item) not in still}
    for key in sorted(before.keys() | after.keys(), key=_order):
        if key not in before:
            yield f"+ {key}"
        elif key not in after:
            yield f"- {key}"
        else:
            yield from (f"{key}: {line}" for line in _differences(before[key], after[key]))


def _order(key: Key) -> tuple[str, str, str]:
    return (key.kind, key.namespace, key.name)


def _differences(old: Resource, new: Resource) -> Iterator[str]:
    if old == new:
        return
    if isinstance(new, Secret):
        yield "data changed" if getattr(old, "data", None) != new.data else "changed"
        return
    yield from _compare(_shown(old), _shown(new), ())


def _shown(resource: Resource) -> dict[str, Any]:  # Any: fields of any kind
    """Fields of a resource that its author writes; a pod's status too, which is what others write of it."""
    left_out = set() if isinstance(resource, Pod) else {"status"}
    fields = resource.model_dump(mode="python", by_alias=True, exclude=left_out)
    for name in ("uid", "generation"):
        fields["metadata"].pop(name, None)
    return fields


def _compare(old: Any, new: Any, location: Location) -> Iterator[str]:  # Any: as above
    if old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*old, *(name for name in new if name not in old)]:
            yield from _compare(old.get(name), new.get(name), (*location, name))
    elif isinstance(old, tuple) and isinstance(new, tuple):
        yield from _compare_lists(old, new, location)
    elif _is_absent(old):
        yield f"{field_path(location)} added{_value(new)}"
    elif _is_absent(new):
        yield f"{field_path(location)} removed"
    elif isinstance(old, dict | tuple | bytes) or isinstance(new, dict | tuple | bytes):
        yield f"{field_path(location)} changed"
    else:
        yield f"{field_path(location)} {quoted(old, limit=_LONGEST)} -> {quoted(new, limit=_LONGEST)}"


def _compare_lists(old: tuple[Any, ...], new: tuple[Any, ...], location: Location) -> Iterator[str]:  # Any: as above
    """Item by item, after what both begin and end with, so that an item in the middle is one line."""
    begin = 0
    while begin < min(len(old), len(new)) and old[begin] == new[begin]:
        begin += 1
    end = 0
    while end < min(len(old), len(new)) - begin and old[-1 - end] == new[-1 - end]:
        end += 1
    before, after = old[begin : len(old) - end], new[begin : len(new) - end]
    for index in range(max(len(before), len(after))):
        place = (*location, begin + index)
        if index >= len(before):
            yield f"{field_path(place)} added{_value(after[index])}"
        elif index >= len(after):
            yield f"{field_path(place)} removed"
        else:
            yield from _compare(before[index], after[index], place)


def _is_absent(value: object) -> bool:
    return value is None or value == () or value == {}


def _value(value: object) -> str:
    return "" if isinstance(value, dict | tuple | bytes) else f": {quoted(value, limit=_LONGEST)}"
