"""InferencePool of the group inference.networking.k8s.io, version 1.6.0 of the Inference Extension.

The shape that it had before is in `legacy`; it becomes this one when it is read, and keeps its group.
"""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from controller.resources.meta import Key, Model, Resource
from controller.resources.scalars import Broken, Group, Kind, Labels, ObjectName, Port, unique_by


class PoolSelector(Model):
    match_labels: Annotated[Labels, Field(min_length=1, max_length=64)]


class PoolPort(Model):
    number: Port


class EndpointPickerRef(Model):
    group: Group = ""
    kind: Kind = "Service"
    name: ObjectName
    port: PoolPort | None = None
    failure_mode: Literal["FailOpen", "FailClose"] = "FailClose"

    @model_validator(mode="after")
    def _service_has_port(self) -> Self:
        if self.kind == "Service" and self.port is None:
            raise Broken("missing, a reference to a Service needs the number of a port", "port")
        return self


class InferencePoolSpec(Model):
    selector: PoolSelector
    target_ports: Annotated[
        tuple[PoolPort, ...], Field(min_length=1, max_length=8), AfterValidator(unique_by("number"))
    ]
    app_protocol: Literal["http", "kubernetes.io/h2c"] = "http"
    endpoint_picker_ref: EndpointPickerRef | None = None


class InferencePool(Resource):
    group: ClassVar[str] = "inference.networking.k8s.io"
    versions: ClassVar[tuple[str, ...]] = ("v1",)

    spec: InferencePoolSpec

    @property
    def key(self) -> Key:
        group = self.api_version.rpartition("/")[0]
        return Key(group=group, kind=self.kind, namespace=self.metadata.namespace, name=self.metadata.name)

    @property
    def picker_field(self) -> str:
        """The field that names an external picker, as the user wrote it."""
        return "endpointPickerRef" if self.key.group == self.group else "extensionRef"
