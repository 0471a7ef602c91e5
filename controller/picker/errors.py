"""Bodies of errors, in the shape of the API that was asked."""

from collections.abc import Mapping
from typing import Final

import msgspec

_ANTHROPIC: Final[Mapping[int, str]] = {
    400: "invalid_request_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
"""Source: Anthropic's API, Errors. Its 529, overloaded, is 503 here, which clients of any kind know."""


def error_body(path: str, *, status: int, message: str, kind: str, code: str) -> bytes:
    """An error as JSON: of Anthropic's shape for its messages, else of OpenAI's, with `kind` as type."""
    if path.endswith(("/v1/messages", "/v1/messages/count_tokens")):
        error = {"type": _ANTHROPIC.get(status, "api_error"), "message": message}
        return msgspec.json.encode({"type": "error", "error": error})
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": None, "code": code}})
