"""ListenerSets: which of them a Gateway lets in, and their standing with it.

Their listeners are resolved like the Gateway's own, and are among those of its state. What a ListenerSet says never
changes the standing of the Gateway: whoever may write the one need not be trusted with the other.

Source: Gateway API, ListenerSet and AllowedListeners.
"""

from dataclasses import replace

from controller.resources.gateway_api import Gateway, ListenerSet
from controller.resources.meta import Key
from controller.topology.conditions import Condition, accepted, refused
from controller.topology.index import Index, selects
from controller.topology.types import GatewayState, ListenerSetState


def admitted(gateway: Gateway, *, index: Index) -> tuple[ListenerSet, ...]:
    """ListenerSets that name a Gateway and that it lets in, oldest first."""
    return tuple(
        item for item in index.listener_sets.get(gateway.key, ()) if is_admitted(item, gateway=gateway, index=index)
    )


def is_admitted(item: ListenerSet, *, gateway: Gateway, index: Index) -> bool:
    """Whether a Gateway lets in ListenerSets of this one's namespace."""
    namespace = item.metadata.namespace
    allowed = gateway.spec.allowed_listeners.namespaces if gateway.spec.allowed_listeners else None
    if allowed is None or allowed.from_ == "None":
        return False
    if allowed.from_ == "Selector":
        return allowed.selector is not None and selects(allowed.selector, index.namespace_labels(namespace))
    return allowed.from_ == "All" or namespace == gateway.metadata.namespace


def listener_set_state(item: ListenerSet, *, gateway: Gateway, state: GatewayState, index: Index) -> ListenerSetState:
    """A ListenerSet that names a Gateway of ours."""
    if is_admitted(item, gateway=gateway, index=index):
        verdict = _verdict(item.key, gateway=state)
    else:
        namespace = item.metadata.namespace
        message = f"spec.allowedListeners of {gateway.key} lets in no ListenerSet of namespace {namespace}"
        verdict = refused("NotAllowed", message)
    return ListenerSetState(
        key=item.key, generation=item.metadata.generation, gateway=gateway.key, conditions=(verdict,)
    )


def judged_again(item: ListenerSetState, *, gateway: GatewayState) -> ListenerSetState:
    """The ListenerSet after something was said of its Gateway's listeners."""
    if any(condition.reason == "NotAllowed" for condition in item.conditions):
        return item
    return replace(item, conditions=(_verdict(item.key, gateway=gateway),))


def _verdict(key: Key, *, gateway: GatewayState) -> Condition:
    """Accepted, of a ListenerSet that may attach.

    Source: Gateway API, ListenerSetConditionAccepted.
    """
    if any(item.type == "Accepted" and item.status is not True for item in gateway.conditions):
        return refused("ParentNotAccepted", f"{gateway.key} is not accepted")
    listeners = gateway.by_owner.get(key, ())
    invalid = [item.name for item in listeners if not item.serves]
    if not invalid:
        return accepted()
    if len(invalid) == len(listeners):
        return refused("ListenersNotValid", "no listener can be served, see listeners")
    return replace(accepted(f"listeners that cannot be served: {', '.join(invalid)}"), reason="ListenersNotValid")
