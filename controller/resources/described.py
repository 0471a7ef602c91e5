"""What the models of our own kinds share: their fields and rules are in CRDs, which are made from them."""

from pydantic import ConfigDict, JsonValue

from controller.resources.meta import Model


class Described(Model):
    """Part of a kind of ours: what its fields say about themselves is in its CRD."""

    model_config = ConfigDict(use_attribute_docstrings=True)


def rules(*pairs: tuple[str, str]) -> dict[str, JsonValue]:
    """CEL rules with their messages, for the schema of a model or a field."""
    return {"x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in pairs]}
