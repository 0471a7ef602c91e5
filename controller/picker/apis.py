"""The model in requests of APIs that have no prompt whose beginning a cache could hold, or none that is read.

Those with one are in `prompt`.
"""

from typing import Final

import msgspec

from controller.picker.forms import boundary_of, model_in_form
from controller.picker.prompt import NO_PROMPT, Prompt, model_alone, unmarked

_BY_NAME: Final = {"rerank": True, "score": True, "classify": True, "pooling": True}
_BY_PLACE: Final = {
    "messages/count_tokens": False,
    "audio/speech": False,
    "audio/transcriptions": True,
    "audio/translations": True,
    "images/generations": True,
    "images/edits": True,
    "images/variations": True,
}
"""By the end of their path: whether the answer may say how many tokens it took."""
_ALONE: Final = 256 * 1024
"""Bytes of a body in which the model is looked for although the rest is odd."""


class _Named(msgspec.Struct, gc=False):
    model: str | None = None
    stream: bool | None = None


_NAMED: Final = msgspec.json.Decoder(_Named)


def read_named(path: str, content_type: str, body: bytes) -> Prompt:
    """What a request of one of these APIs names, without prompt; nothing for another path."""
    parts = path.rsplit("/", 2)
    tells_usage = _BY_PLACE.get("/".join(parts[1:]), _BY_NAME.get(parts[-1]))
    if tells_usage is None:
        return NO_PROMPT
    boundary = boundary_of(content_type)
    if boundary is not None:
        return Prompt(model=model_in_form(body, boundary), tells_usage=tells_usage)
    body = unmarked(body)
    try:
        asked = _NAMED.decode(body)
    except (ValueError, RecursionError):
        return Prompt(model=model_alone(body) if len(body) <= _ALONE else "", tells_usage=tells_usage)
    return Prompt(model=asked.model or "", is_streamed=asked.stream is True, tells_usage=tells_usage)
