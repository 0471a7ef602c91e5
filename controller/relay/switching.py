"""WebSockets: what becomes of a request for another protocol, and what its picker is told of it.

How bytes pass is in `tunnel`.
"""

from collections.abc import Sequence
from contextlib import suppress

from controller.extproc.messages import ENDPOINT_NAMESPACE, SERVED_KEY, HeadersAnswer, Phase
from controller.relay import tunnel
from controller.relay.changes import changed, ordinary
from controller.relay.dialogue import Dialogue
from controller.relay.errors import EndpointFailed, PickerFailed
from controller.relay.places import place_of
from controller.relay.relayed import Relayed
from controller.relay.requesting import head_for, passed
from controller.relay.tunnel import Tunnel


async def ask(relayed: Relayed, addresses: Sequence[str], *, answer: HeadersAnswer) -> tuple[str, Tunnel]:
    """Ask the first endpoint that answers for the other protocol: its address, and whether it agrees.

    Raises EndpointFailed when none answers.
    """
    fields = passed(relayed, answer.changes)
    failure = EndpointFailed("")
    for address in addresses:
        head = head_for(relayed, address, changes=answer.changes, fields=fields, has_body=False, length=None)
        try:
            place = place_of(address, stem=relayed.stem)
            return address, await tunnel.ask(place, head, relayed.request.upgrade)
        except EndpointFailed as problem:
            failure = problem
            relayed.failed_at(address, problem.outcome)
    raise failure


async def join(relayed: Relayed, dialogue: Dialogue, connection: Tunnel, *, address: str) -> None:
    """Join the client with an endpoint that agreed, until the endpoint has ended."""
    fields = ordinary(connection.fields)
    metadata = {ENDPOINT_NAMESPACE: {SERVED_KEY: address}}
    try:
        if not dialogue.is_over:
            head = [(b":status", b"101"), *fields]
            dialogue.send_head(Phase.RESPONSE, head, end=False, metadata=metadata)
        answer = await dialogue.response.head(
            patience=relayed.services.patience.answer, what="an answer to the response's headers"
        )
    except PickerFailed as problem:
        dialogue.give_up(problem)
        answer = None
    if answer is not None:
        fields = changed(fields, answer.changes)
    agreed = next((value for name, value in connection.fields if name == b"upgrade"), relayed.request.upgrade)
    head = [*fields, *tunnel.upgrading(agreed), *relayed.notes(address)]
    await relayed.reply.begin(tunnel.SWITCHED, head)
    await tunnel.join(relayed.request, relayed.reply, connection)
    with suppress(PickerFailed):
        dialogue.send_body(Phase.RESPONSE, b"", end=True)
    await relayed.reply.end()
