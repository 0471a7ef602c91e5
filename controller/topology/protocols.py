"""What the protocol of a listener means for it: which routes it takes, and with which others it shares a port."""

from typing import Final

from controller.ir.streams import Opening, Transport
from controller.resources.gateway_api import Listener

PROTOCOLS: Final = ("HTTP", "HTTPS", "TLS", "TCP", "UDP")
"""Protocols that are supported."""

_OF_REQUESTS: Final = ("HTTPRoute", "GRPCRoute")
_KINDS: Final = {"HTTP": _OF_REQUESTS, "HTTPS": _OF_REQUESTS, "TCP": ("TCPRoute",), "UDP": ("UDPRoute",)}


def kinds_of(listener: Listener) -> tuple[str, ...]:
    """Kinds of routes, as far as they are supported.

    A TCPRoute takes all connections of a listener where TLS ends at the gateway.
    Source: Gateway API, TLSRoute and TLSModeType.
    """
    if listener.protocol == "TLS":
        return ("TLSRoute",) if is_passthrough(listener) else ("TLSRoute", "TCPRoute")
    return _KINDS.get(listener.protocol, ())


def is_passthrough(listener: Listener) -> bool:
    """Whether TLS ends at the backend."""
    return listener.protocol == "TLS" and listener.tls is not None and listener.tls.mode == "Passthrough"


def needs_certificates(listener: Listener) -> bool:
    """Whether TLS ends at the gateway."""
    return listener.protocol == "HTTPS" or (listener.protocol == "TLS" and not is_passthrough(listener))


def opening_of(port: int, protocol: str) -> Opening:
    """What a listener of a protocol opens."""
    return Opening(port, Transport.UDP if protocol == "UDP" else Transport.TCP)


def family_of(protocol: str) -> str:
    """Listeners of one family share a port, and are told apart by hostname.

    HTTPS and TLS are one: a client says the hostname in the same message.
    """
    return "TLS" if protocol == "HTTPS" else protocol
