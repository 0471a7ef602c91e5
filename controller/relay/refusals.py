"""Answers that the relay makes itself, in the shape of the API that was asked."""

import json

from controller.relay.http1 import Fields


def refusal(target: bytes, *, message: str, code: str) -> tuple[Fields, bytes]:
    """Headers and body of an error that is the backend's fault: OpenAI's shape, or Anthropic's for its API."""
    path = target.partition(b"?")[0]
    error: dict[str, object]
    if path.endswith((b"/v1/messages", b"/v1/messages/count_tokens")):
        error = {"type": "error", "error": {"type": "api_error", "message": message}}
    else:
        error = {"error": {"message": message, "type": "server_error", "param": None, "code": code}}
    return [(b"content-type", b"application/json")], json.dumps(error).encode() + b"\n"
