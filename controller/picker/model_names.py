"""What may be asked of a pool by name: models and adapters that its endpoints list, and aliases of its rewrites."""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from controller.picker.answers import Outcome, Refusal
from controller.picker.endpoints import Endpoint
from controller.picker.pools import PoolState
from controller.picker.served import LONGEST_NAME, ServedModel

Models = Mapping[str, ServedModel]
"""By name."""

MOST_NAMES: Final = 20
"""Models that an error names."""


def listed_of(pool: PoolState, *, now: float) -> Models:
    """What the endpoints of a pool list that do not fail, or all where all fail; empty when none lists anything."""
    well = [endpoint for endpoint in pool.endpoints if endpoint.health.may_serve(now)]
    return _listed(well) or _listed(pool.endpoints)


def aliases_of(pool: PoolState, *, listed: Models) -> Models:
    """Names that stand for models which are listed. A model's own name is no alias, whatever it is rewritten to."""
    found: dict[str, ServedModel] = {}
    for rewrite in pool.rewrites:
        models = [listed[target.model] for target in rewrite.targets if target.weight and target.model in listed]
        for name in rewrite.models if models else ():
            if name not in listed:
                found[name] = _alias(name, models)
    return found


def models_of(pool: PoolState, *, now: float) -> Models:
    """Both."""
    listed = listed_of(pool, now=now)
    return {**listed, **aliases_of(pool, listed=listed)}


def merged(models: Iterable[Models]) -> Models:
    """The models of several pools, each name once, sorted; of two of one name that of the first pool."""
    found: dict[str, ServedModel] = {}
    for each in models:
        found = {**each, **found}
    return {name: found[name] for name in sorted(found)}


def encoded(models: Models) -> bytes:
    """Models in the shape of OpenAI's API, sorted by name."""
    return msgspec.json.encode({"object": "list", "data": [models[name] for name in sorted(models)]})


def encoded_model(model: ServedModel) -> bytes:
    """One model in the same shape."""
    return msgspec.json.encode(model)


def unknown_model(model: str, models: Models) -> Refusal:
    """The error for a model that nobody serves, which names those that are there."""
    names = sorted(models)
    told = ", ".join(names[:MOST_NAMES])
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    message = f"the model `{model[:LONGEST_NAME]}` does not exist" + (f", there are {told}{more}" if names else "")
    return Refusal(Outcome.MODEL_UNKNOWN, 404, message, kind="invalid_request_error")


def base_of(model: ServedModel) -> str:
    """The base model of what an endpoint lists; its own where it is no adapter."""
    return model.parent or model.id


def _listed(endpoints: Iterable[Endpoint]) -> dict[str, ServedModel]:
    found: dict[str, ServedModel] = {}
    for endpoint in endpoints:
        for model in endpoint.models:
            found.setdefault(model.id, model)
    return found


def _alias(name: str, models: list[ServedModel]) -> ServedModel:
    """As its first model, and with the base model that all have in common."""
    bases = {base_of(model) for model in models}
    return msgspec.structs.replace(models[0], id=name, parent=bases.pop() if len(bases) == 1 else None)
