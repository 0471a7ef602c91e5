"""InferencePool as it was before version 1: the group inference.networking.x-k8s.io, version v1alpha2."""

from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field

from controller.resources.inference import (
    EndpointPickerRef,
    InferencePool,
    InferencePoolSpec,
    PoolPort,
    PoolSelector,
)
from controller.resources.meta import Model, Resource
from controller.resources.scalars import Group, Kind, Labels, ObjectName, Port

LEGACY_GROUP: Final = "inference.networking.x-k8s.io"
_PICKER_PORT: Final = 9002
"""Of an external picker whose port is not said. Source: InferencePool v1alpha2, extensionRef.portNumber."""


class ExtensionRef(Model):
    group: Group = ""
    kind: Kind = "Service"
    name: ObjectName
    port_number: Port | None = None
    failure_mode: Literal["FailOpen", "FailClose"] = "FailClose"


class LegacyInferencePoolSpec(Model):
    selector: Annotated[Labels, Field(min_length=1, max_length=64)]
    """Labels of pods, without `matchLabels` around them."""
    target_port_number: Port
    extension_ref: ExtensionRef | None = None


class LegacyInferencePool(Resource):
    group: ClassVar[str] = LEGACY_GROUP
    versions: ClassVar[tuple[str, ...]] = ("v1alpha2",)

    spec: LegacyInferencePoolSpec

    @classmethod
    def kind_name(cls) -> str:
        """See `Resource.kind_name`."""
        return InferencePool.kind_name()

    def in_present_shape(self) -> InferencePool:
        """The pool as version 1 would have it, in its own group."""
        reference = self.spec.extension_ref
        picker = reference and EndpointPickerRef(
            group=reference.group,
            kind=reference.kind,
            name=reference.name,
            port=PoolPort(number=reference.port_number or _PICKER_PORT),
            failure_mode=reference.failure_mode,
        )
        return InferencePool(
            api_version=self.api_version,
            kind=self.kind,
            metadata=self.metadata,
            spec=InferencePoolSpec(
                selector=PoolSelector(match_labels=self.spec.selector),
                target_ports=(PoolPort(number=self.spec.target_port_number),),
                endpoint_picker_ref=picker,
            ),
            status=self.status,
        )
