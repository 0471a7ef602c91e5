"""Questions of clients for models: which there are, and what one of them is. No endpoint is asked for the answer."""

from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import unquote

from controller.headers import NAMED_MODEL_HEADER, POOLS_HEADER
from controller.picker.answers import answer_of_models, answer_of_refusal
from controller.picker.model_lists import PATH
from controller.picker.model_names import Models, encoded, encoded_model, unknown_model
from controller.picker.requests import Headers

_POOLS: Final = POOLS_HEADER.encode()
_NAMED_MODEL: Final = NAMED_MODEL_HEADER.encode()

ModelsOf = Callable[[Iterable[str]], Models]
"""What pools serve, by name."""
Doubt = Callable[[Iterable[str]], None]
"""Has what pools serve asked anew."""


def is_elsewhere(headers: Headers) -> bool:
    """Whether NGINX has no rule for a request, and asks in place of an error page of its own."""
    return _POOLS in headers


def asked_model(method: str, path: str) -> str | None:
    """The model that is asked about; empty for the list of all, None for a request that asks for something else."""
    if method != "GET" or PATH not in path:
        return None
    rest = path.partition(PATH)[2]
    return unquote(rest[1:]) if rest[:1] == "/" and len(rest) > 1 else None if rest else ""


def list_of_rule(method: str, path: str, headers: Headers, *, pool: str, models_of: ModelsOf) -> bytes | None:
    """The answer as JSON where a rule sends the question to a pool; None where an endpoint is to give it.

    It is the list of all pools of the rule, or one model of theirs.
    """
    asked = asked_model(method, path)
    if asked is None:
        return None
    models = models_of(_pools(headers) if _POOLS in headers else [pool])
    if asked is not None and asked in models:
        return encoded_model(models[asked])
    return encoded(models) if not asked and models else None


def answer_elsewhere(method: str, path: str, headers: Headers, *, models_of: ModelsOf, doubt: Doubt) -> bytes:
    """The answer where no rule has the request: what all pools of the place have together.

    A model that they do not have may just have been loaded.
    """
    models = models_of(_pools(headers))
    asked = asked_model(method, path)
    if asked == "":
        return answer_of_models(encoded(models))
    if asked is not None and asked in models:
        return answer_of_models(encoded_model(models[asked]))
    model = asked or headers.get(_NAMED_MODEL, b"").decode("utf-8", "replace")
    if model not in models:
        doubt(_pools(headers))
    return answer_of_refusal(unknown_model(model, models), method=method, path=path)


def _pools(headers: Headers) -> list[str]:
    return headers[_POOLS].decode("latin-1").split(",")
