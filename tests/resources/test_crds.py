"""The custom resource definitions of our kinds."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.resources.kinds import MODELS
from tools.crds import CHART, DEFINITIONS, DIRECTORY, files

Schema = dict[str, Any]  # any: OpenAPI schema

KNOWN = {
    *("type", "description", "enum", "format", "default", "pattern", "required", "properties", "items"),
    *("additionalProperties", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength"),
    *("minItems", "maxItems", "minProperties", "maxProperties"),
    *("x-kubernetes-validations", "x-kubernetes-list-type", "x-kubernetes-list-map-keys"),
    *("x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields"),
}
"""Keywords that are used here and that a structural schema may have. Source: Kubernetes, apiextensions v1."""


def _schemas(path: str, schema: Schema) -> Iterator[tuple[str, Schema]]:
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from _schemas(f"{path}.{name}", inner)
    for name in ("items", "additionalProperties"):
        if name in schema:
            yield from _schemas(f"{path}[]", schema[name])


def _every_schema() -> list[tuple[str, Schema]]:
    return [
        found
        for text in files().values()
        for version in yaml.safe_load(text)["spec"]["versions"]
        for found in _schemas("", version["schema"]["openAPIV3Schema"])
    ]


@pytest.mark.parametrize("folder", [DIRECTORY, CHART], ids=lambda path: str(path.relative_to(DIRECTORY.parent)))
@pytest.mark.parametrize("name", sorted(files()))
def test_checked_in_file_is_what_the_models_give(folder: Path, name: str) -> None:
    assert (folder / name).read_text() == files()[name], "run `make crds`"


def test_every_kind_of_ours_has_a_definition() -> None:
    ours = {model.__name__ for model in MODELS if model.group == "infergate.dev"}

    assert {item.model.__name__ for item in DEFINITIONS} == ours
    assert {path.name for path in DIRECTORY.glob("*.yaml")} == {path.name for path in CHART.iterdir()} == set(files())


@pytest.mark.parametrize(("path", "schema"), _every_schema(), ids=lambda item: item if isinstance(item, str) else "")
def test_schema_is_structural(path: str, schema: Schema) -> None:
    assert schema.keys() <= KNOWN
    assert ("type" in schema) != ("x-kubernetes-int-or-string" in schema)
    assert not {"properties", "additionalProperties"} <= schema.keys()
    if schema.get("type") == "array":
        assert "items" in schema
        assert path.startswith(".status") or "maxItems" in schema or ".config." not in path


def test_only_what_others_judge_is_free() -> None:
    free = [path for path, schema in _every_schema() if "x-kubernetes-preserve-unknown-fields" in schema]

    assert sorted(free) == [
        *(".spec.affinity.nodeAffinity", ".spec.affinity.podAffinity", ".spec.affinity.podAntiAffinity"),
        ".spec.config.plugins[].parameters",
    ]


def test_every_field_of_a_spec_says_what_it_is() -> None:
    told = [(path, schema) for path, schema in _every_schema() if path.startswith(".spec") and not path.endswith("[]")]

    assert [path for path, schema in told if not schema.get("description")] == []
