"""What of the built-in picker's tests is not run with our own picker as an external one, and why.

`docs/ext-proc.md` says in "Between both of ours" what of it a user meets.
"""

from typing import Final

_EXTERNAL: Final = "plays an external picker itself"
_BESIDE: Final = "plays the picker beside NGINX, or asks it"
_NO_PICK: Final = "speaks of what NGINX does before anybody picks, or for Services"

SUITES: Final[dict[str, str]] = {
    "asked_again": _EXTERNAL,
    "backend_tls": _NO_PICK,
    "calls": _NO_PICK,
    "client_certificates": _NO_PICK,
    "command": "starts `infergate run`, which has no picker but its own",
    "connections": _NO_PICK,
    "connections_to_tls": _NO_PICK,
    "drawn_routes": _NO_PICK,
    "examples": "the examples name no external picker",
    "external_pickers": _EXTERNAL,
    "failing_pickers": _EXTERNAL,
    "large_bodies": "measures the memory of NGINX, which reads models before anybody picks",
    "late_pickers": _EXTERNAL,
    "legacy": "pools of the former group are not read by `infergate picker --ext-proc`",
    "listener_sets": _NO_PICK,
    "many_rules": _NO_PICK,
    "misdirected": _NO_PICK,
    "models": _NO_PICK,
    "models_in_streams": _NO_PICK,
    "models_of_relayed_pools": _EXTERNAL,
    "named_endpoints": _EXTERNAL,
    "parameters": _NO_PICK,
    "picker_answers": _BESIDE,
    "pools_in_tls": "has its own tests with an external picker",
    "protocols": _NO_PICK,
    "real_engines": "takes minutes, and the cache of a model server is the same behind either",
    "refusals": _NO_PICK,
    "refused_streams": _EXTERNAL,
    "relay_metrics": _EXTERNAL,
    "relayed_load": _EXTERNAL,
    "relayed_protocols": _EXTERNAL,
    "relayed_usage": _EXTERNAL,
    "retry_of_rules": _NO_PICK,
    "routing": _NO_PICK,
    "scale": "counts processes and bytes of the built-in way; `test_relayed_load` has the relay's",
    "sessions_of_pickers": _EXTERNAL,
    "timeouts": "has its own tests with an external picker",
    "tls_of_pickers": _EXTERNAL,
}
"""Modules of `tests/nginx`, without `test_`."""

TESTS: Final[dict[str, dict[str, str]]] = {
    "test_priorities": {
        "test_picker_is_told_what_the_route_says_and_nothing_of_the_client": f"{_BESIDE}; see test_external_pickers",
    },
    "test_unknown_models": {
        "test_large_body_is_refused_where_nginx_reads_its_model[9000000": (
            "an external picker reads the model itself, of bodies that it keeps"
        ),
    },
}
"""Tests by module; where only some of their parameters are meant, with the beginning of these."""
