"""Redirects that rules and backends answer with."""

from collections.abc import Iterable

from controller.ir.filters import Filter, Redirect
from controller.ir.types import Server


def redirect_of(filters: Iterable[Filter]) -> Redirect | None:
    return next((item for item in filters if isinstance(item, Redirect)), None)


def redirect_port(redirect: Redirect, server: Server) -> int | None:
    """The port to write into a Location.

    Source: Gateway API, HTTPRequestRedirectFilter.port.
    """
    scheme = redirect.scheme or ("https" if server.is_tls else "http")
    implied = {"http": 80, "https": 443}[scheme]
    port = redirect.port or (implied if redirect.scheme else server.port)
    return None if port == implied else port
