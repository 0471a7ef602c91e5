"""InferenceModelRewrite, which gives requests of a pool another model than the one that they name."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from controller.resources.meta import Key, Model, Resource
from controller.resources.policies import PoolRef
from controller.resources.scalars import Text

ModelName = Annotated[Text, Field(min_length=1, max_length=4096)]
"""As a body may name it. The definitions know no upper bound; a name of more is no model where bodies are read."""
Weight = Annotated[int, Field(strict=True, ge=0, le=1_000_000)]
"""The definitions accept from 1 on; a file that no API server has seen may say 0."""


class ModelMatch(Model):
    type: Literal["Exact"] = "Exact"
    value: ModelName


class RewriteMatch(Model):
    model: ModelMatch | None = None
    """None matches every model."""


class RewriteTarget(Model):
    weight: Weight | None = None
    model_rewrite: ModelName


class RewriteRule(Model):
    matches: tuple[RewriteMatch, ...] = ()
    """Any of them; without one every model matches."""
    targets: Annotated[tuple[RewriteTarget, ...], Field(min_length=1)]


class InferenceModelRewriteSpec(Model):
    pool_ref: PoolRef
    rules: tuple[RewriteRule, ...]


class InferenceModelRewrite(Resource):
    """Which models stand for which. Both groups are one kind: the second is where it came from."""

    group: ClassVar[str] = "llm-d.ai"
    former_groups: ClassVar[tuple[str, ...]] = ("inference.networking.x-k8s.io",)
    versions: ClassVar[tuple[str, ...]] = ("v1alpha2",)

    spec: InferenceModelRewriteSpec

    @property
    def key(self) -> Key:
        group = self.api_version.rpartition("/")[0]
        return Key(group=group, kind=self.kind, namespace=self.metadata.namespace, name=self.metadata.name)
