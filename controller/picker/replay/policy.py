"""The policy of a replay, from a file: a PickerPolicy or an EndpointPickerConfig."""

from pathlib import Path
from typing import Any

import yaml

from controller.errors import SettingInvalid
from controller.plugins.catalogue import Catalogue
from controller.plugins.parse import PickerConfig, parse
from controller.plugins.types import AppliedPolicy

MOST_FALLBACKS = 2


def policy_in(path: Path, *, catalogue: Catalogue) -> AppliedPolicy:
    """How the document in a file chooses endpoints. Who may wait has no part in a replay.

    Raises SettingInvalid.
    """
    try:
        document = yaml.safe_load(path.read_bytes())
    except (OSError, yaml.YAMLError) as error:
        raise SettingInvalid(f"{path}: {error}") from error
    kind = document.get("kind") if isinstance(document, dict) else None
    if kind == "EndpointPickerConfig":
        return AppliedPolicy(scheduling=_config(document, path=path, catalogue=catalogue).scheduling)
    if kind != "PickerPolicy":
        raise SettingInvalid(f"{path}: found kind {kind}, accepted is one PickerPolicy or EndpointPickerConfig")
    spec: Any = document.get("spec")  # Any: as somebody wrote it
    if not isinstance(spec, dict):
        raise SettingInvalid(f"{path}: spec: accepted is a mapping")
    fallbacks = spec.get("fallbacks", 0)
    if type(fallbacks) is not int or not 0 <= fallbacks <= MOST_FALLBACKS:
        raise SettingInvalid(f"{path}: spec.fallbacks: found {fallbacks!r}, accepted is 0 to {MOST_FALLBACKS}")
    config = _config(spec.get("config"), path=path, catalogue=catalogue)
    return AppliedPolicy(scheduling=config.scheduling, fallbacks=fallbacks)


def _config(document: object, *, path: Path, catalogue: Catalogue) -> PickerConfig:
    config = parse(document, catalogue=catalogue)
    if isinstance(config, PickerConfig):
        return config
    raise SettingInvalid(f"{path}: {'; '.join(map(str, config))}")
