"""Which adapters belong to which base model, as llm-d's payload processor has it: a ConfigMap for each base model."""

from collections.abc import Mapping
from typing import Final

import yaml

from controller.resources.scalars import Broken, quoted

LABEL: Final = "inference.llm-d.ai/ipp-managed"
"""Whose value `true` marks such a ConfigMap."""
BASE_FIELD: Final = "baseModel"
ADAPTERS_FIELD: Final = "adapters"


def is_marked(labels: Mapping[str, str]) -> bool:
    return labels.get(LABEL) == "true"


def adapters_of(data: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    """The base model and its adapters, in order. Raises Broken when one of them cannot be read."""
    base = data.get(BASE_FIELD, "").strip()
    if not base:
        raise Broken(f"missing, the label {LABEL} says that it names a base model", "data", BASE_FIELD)
    try:
        listed = yaml.safe_load(data.get(ADAPTERS_FIELD, ""))
    except yaml.YAMLError:
        raise Broken("found what is no YAML, accepted is a list of names", "data", ADAPTERS_FIELD) from None
    names = [] if listed is None else listed
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise Broken(f"found {quoted(names)}, accepted is a list of names", "data", ADAPTERS_FIELD)
    return base, tuple(names)
