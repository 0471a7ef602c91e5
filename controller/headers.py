"""Headers between nginx, the picker and the relay, and what their values mean.

The njs modules and the templates write some of them by name.
"""

import hashlib
from enum import StrEnum
from typing import Final

POOL_HEADER: Final = "x-infergate-pool"
"""From nginx to the picker: `namespace/name` of the pool to pick from."""
NAMED_MODEL_HEADER: Final = "x-gateway-model-name"
"""From nginx to the picker: the model that the request names, where nginx read it."""
POOLS_HEADER: Final = "x-infergate-pools"
"""From nginx to the picker: names of the pools that a question for models is about, with commas between them: those of
the rule where it has several, or of all rules of a place where none has the request. Else absent."""
THEN_HEADER: Final = "x-infergate-then"
"""From nginx to the picker: the named location that serves the picked request."""
REWRITES_HEADER: Final = "x-infergate-rewrites"
"""From nginx to the picker: the named location that serves the request when it is to name another model; absent where
nginx cannot change that."""
TARGET_HEADER: Final = "x-infergate-target"
"""From the picker to nginx: the model that the request names instead. From nginx to the picker: the one that was chosen
on the first pick of the request."""
TRIED_HEADER: Final = "x-infergate-tried"
"""From nginx to the picker: endpoints that failed before, oldest first; empty on a first pick.

Each is `ip:port=OUTCOME;` with a TryOutcome.
"""
ID_HEADER: Final = "x-infergate-request"
"""From nginx to the picker: nginx's own id of the request, 32 hexadecimal digits, the same in the completion feed."""
ENDPOINT_HEADER: Final = "x-gateway-destination-endpoint"
"""From the picker, or the relay, to nginx: `ip:port` of the endpoint that serves the request. From nginx to either:
`session_id` of the endpoint that the session of the request is on; absent without one."""
STREAMS_HEADER: Final = "x-infergate-streams"
"""From the picker to nginx: `1` when the request asks for its answer token by token, so that nginx tells of the first
byte."""
USAGE_HEADER: Final = "x-infergate-usage"
"""From the picker to nginx: `1` when nginx is to read from the answer how many tokens it took. From the relay to nginx,
as a trailer: what it has read, `PROMPT/CACHED/COMPLETION`, with nothing for what the answer does not tell."""
MODEL_HEADER: Final = "x-infergate-model"
"""From the picker to nginx: the model that the request names, for the access log."""
PICK_HEADER: Final = "x-infergate-pick"
"""From the relay to nginx: seconds until the picker chose, for the access log."""
DIALED_HEADER: Final = "x-infergate-dialed"
"""From nginx to the relay: the stem of the sockets behind which the dialer has the endpoints; empty in plain text."""
CONNECTION_HEADER: Final = "x-infergate-connection"
"""From nginx to the relay: what the client's `Connection` says, but for what is said in most requests; and behind a
semicolon the names of headers that the rule sets, which are no client's to remove."""
EXPLAIN_HEADER: Final = "x-infergate-explain"
"""From the client: `1` asks why its endpoint was chosen. From the picker, through nginx to the client: why, as JSON."""
SESSION_TOKEN_HEADER: Final = "x-session-token"
"""From the picker, through nginx to the client: the endpoint that its session is on, where the pool's policy has the
client keep that. From the client, as it was told. The name is the field's."""
PRIORITY_HEADERS: Final = ("x-infergate-priority", "x-infergate-priority-cap", "x-infergate-priority-default")
"""From nginx to the picker: what a route says of the priority of its requests; see the picker's flow control."""

STEERING_HEADERS: Final = (
    ID_HEADER,
    POOL_HEADER,
    POOLS_HEADER,
    THEN_HEADER,
    TRIED_HEADER,
    REWRITES_HEADER,
    TARGET_HEADER,
    ENDPOINT_HEADER,
    STREAMS_HEADER,
    USAGE_HEADER,
    MODEL_HEADER,
    PICK_HEADER,
    DIALED_HEADER,
    CONNECTION_HEADER,
    EXPLAIN_HEADER,
    *PRIORITY_HEADERS,
    "x-gateway-destination-endpoint-fallbacks",
    "x-gateway-destination-endpoint-subset",
    "x-gateway-destination-endpoint-served",
)
"""Headers that steer the gateway: removed from what clients send before a model server sees it, and from answers."""


def session_id(backend: str, address: str) -> str:
    """What a session bears of its endpoint, 16 hexadecimal digits. `nginx/njs/sessions.js` makes the same."""
    return hashlib.sha256(f"{backend} {address}".encode()).hexdigest()[:16]


class TryOutcome(StrEnum):
    """How a try failed, in nginx's eyes."""

    UNREACHABLE = "unreachable"
    """No connection: the request never got there."""
    CLOSED = "closed"
    """The connection ended before an answer."""
    TIMEOUT = "timeout"
    """No answer in time; the endpoint may still work on it."""
    FAILED = "failed"
    """Anything else."""
