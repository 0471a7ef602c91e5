"""What the Inference Extension had before version 1: the group inference.networking.x-k8s.io, version v1alpha2.

InferencePool has another shape since, and InferenceModel became InferenceObjective and InferenceModelRewrite.
"""

from enum import StrEnum
from typing import Annotated, ClassVar, Final, Literal

from pydantic import AfterValidator, Field

from controller.resources.inference import (
    EndpointPickerRef,
    InferencePool,
    InferencePoolSpec,
    PoolPort,
    PoolSelector,
)
from controller.resources.meta import Model, Resource
from controller.resources.policies import PoolRef
from controller.resources.scalars import Broken, Group, Kind, Labels, ObjectName, Port, Text

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


class Criticality(StrEnum):
    CRITICAL = "Critical"
    STANDARD = "Standard"
    SHEDDABLE = "Sheddable"


class TargetModel(Model):
    name: Annotated[Text, Field(min_length=1, max_length=253)]
    weight: Annotated[int, Field(strict=True, ge=0, le=1_000_000)] | None = None
    """Later releases of the kind accept from 1 on."""


def _all_or_none(targets: tuple[TargetModel, ...]) -> tuple[TargetModel, ...]:
    missing = [index for index, target in enumerate(targets) if target.weight is None]
    if missing and len(missing) < len(targets):
        raise Broken("missing, where another target has a weight all need one", missing[0], "weight")
    return targets


class LegacyPoolRef(PoolRef):
    group: Group = LEGACY_GROUP


class InferenceModelSpec(Model):
    model_name: Annotated[Text, Field(min_length=1, max_length=256)]
    criticality: Criticality | None = None
    target_models: Annotated[tuple[TargetModel, ...], Field(max_length=10), AfterValidator(_all_or_none)] = ()
    """Without one, the model itself."""
    pool_ref: LegacyPoolRef


class InferenceModel(Resource):
    """A model of a pool by the name that clients use: how important it is, and which models stand for it."""

    group: ClassVar[str] = LEGACY_GROUP
    versions: ClassVar[tuple[str, ...]] = ("v1alpha2",)

    spec: InferenceModelSpec
