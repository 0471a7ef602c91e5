"""Base models of adapters, from the ConfigMaps that name them."""

from collections.abc import Iterable

from controller.resources.adapters import adapters_of, is_marked
from controller.resources.core import ConfigMap
from controller.topology.types import BaseModel


def base_models_of(config_maps: Iterable[ConfigMap]) -> tuple[BaseModel, ...]:
    """In the order of the ConfigMaps; those without the label are passed over."""
    marked = (item for item in config_maps if is_marked(item.metadata.labels))
    return tuple(BaseModel(item.metadata.namespace, *adapters_of(item.data)) for item in marked)
