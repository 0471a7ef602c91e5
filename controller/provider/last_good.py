"""What stays of the last snapshot while the place where it was read holds something that cannot be read."""

from collections.abc import Callable, Container

from controller.resources.meta import Key, Resource
from controller.resources.snapshot import Snapshot


def last_good_forms(
    before: Snapshot, *, present: Container[Key], may_be_hidden: Callable[[Resource, str], bool]
) -> tuple[tuple[Resource, str], ...]:
    """(resource, source) of what `before` had and is not `present`, as far as it may be hidden by a flaw.

    may_be_hidden: whether something that cannot be read may be this resource, given where it was read.
    """
    missing = [(key, source) for key, source in before.sources if key not in present]
    if not missing:
        return ()
    resources = {item.key: item for item in before.resources}
    return tuple((resources[key], source) for key, source in missing if may_be_hidden(resources[key], source))
