"""What all resources have in common, and the keys by which everything else names them."""

from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, NamedTuple

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from controller.resources.scalars import DnsName, Labels, NamespaceName, Text

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""Creation time of a resource that states none, so that those are the oldest."""


class Key(NamedTuple):
    """Names one resource in one cluster or directory.

    A tuple and no dataclass, whose hash and comparison are Python: a turn with 1,000 routes asks for them 30,000 times.
    """

    group: str
    """API group, empty for the core group."""
    kind: str
    namespace: str
    """Empty for cluster-scoped kinds."""
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.path}"

    @property
    def path(self) -> str:
        """`namespace/name`, or `name` for cluster-scoped kinds."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class Model(BaseModel):
    """Part of a resource: frozen, camelCase outside, and an unknown field is an error."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid")


class LenientModel(BaseModel):
    """Part of a resource of which only some fields are read: the others are ignored."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")


class Metadata(LenientModel):
    """ObjectMeta, as far as it is used."""

    name: DnsName
    namespace: NamespaceName = ""
    uid: Text = ""
    generation: Annotated[int, Field(strict=True, ge=0)] = 1
    """1 for a resource that states none, as an API server counts."""
    creation_timestamp: AwareDatetime = EPOCH
    deletion_timestamp: AwareDatetime | None = None
    labels: Labels = Field(default_factory=dict)
    annotations: dict[Text, Text] = Field(default_factory=dict)


class Resource(BaseModel):
    """A resource as users write it. Subclasses name their group, kind and scope, and hold `spec` and the like."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid")

    group: ClassVar[str]
    versions: ClassVar[tuple[str, ...]]
    """API versions that are read, the preferred one first."""
    former_groups: ClassVar[tuple[str, ...]] = ()
    """Groups in which the kind is read too, in the same versions: those that it came from."""
    cluster_scoped: ClassVar[bool] = False
    status_is_read: ClassVar[bool] = False
    """Whether its status says something to us. That of most is what we and other controllers write."""

    api_version: str
    kind: str
    metadata: Metadata
    status: dict[str, Any] | None = Field(default=None, repr=False)  # any shape: written by others, kept for merging

    @classmethod
    def kind_name(cls) -> str:
        """The kind as documents name it: the name of the class, but where two shapes of one kind are read."""
        return cls.__name__

    @property
    def key(self) -> Key:
        return Key(group=self.group, kind=self.kind, namespace=self.metadata.namespace, name=self.metadata.name)

    @property
    def content(self) -> tuple[object, ...]:
        """What it says: all its fields, without a status that is not read."""
        return tuple(getattr(self, name) for name in type(self).model_fields if name != "status" or self.status_is_read)
