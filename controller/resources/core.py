"""Kinds of Kubernetes itself, as far as a gateway reads them. Fields that are not here are ignored."""

import base64
import binascii
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from controller.resources.adapters import adapters_of, is_marked
from controller.resources.meta import LenientModel, Metadata, Resource
from controller.resources.scalars import (
    Broken,
    DnsLabel,
    DnsName,
    Flag,
    IpAddress,
    Port,
    ServiceName,
    Text,
    is_address,
    is_hostname,
    quoted,
    unique_by,
)

_LENIENT = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")

TransportProtocol = Literal["TCP", "UDP", "SCTP"]


def _port_or_name(value: object) -> object:
    if isinstance(value, str) and 0 < len(value) <= 63:
        return value
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65535:
        return value
    raise Broken(f"found {quoted(value)}, accepted is a number from 1 to 65535 or the name of a port")


def _without_final_dot(value: object) -> object:
    """A name as Kubernetes accepts it: absolute in DNS or not. Source: Kubernetes, ValidateService."""
    return value.removesuffix(".") if isinstance(value, str) else value


PortOrName = Annotated[int | str, BeforeValidator(_port_or_name)]


# Service


class ServicePort(LenientModel):
    name: Text = ""
    port: Port
    target_port: PortOrName | None = None
    """Number or name of the pods' port; None is the number in `port`."""
    protocol: TransportProtocol = "TCP"
    app_protocol: Text | None = None


class ServiceSpec(LenientModel):
    type: Literal["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"] = "ClusterIP"
    cluster_ip: Text | None = Field(default=None, alias="clusterIP")
    external_name: Annotated[DnsName, BeforeValidator(_without_final_dot)] | None = None
    """Without the dot at its end."""
    ports: Annotated[tuple[ServicePort, ...], AfterValidator(unique_by("name"))] = ()
    selector: dict[Text, Text] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fields_fit_type(self) -> Self:
        if self.type == "ExternalName" and self.external_name is None:
            raise Broken("missing, type ExternalName needs it", "externalName")
        if self.type != "ExternalName" and self.cluster_ip != "None" and not self.ports:
            raise Broken("missing, a Service with an address needs at least one port", "ports")
        return self

    @model_validator(mode="after")
    def _several_ports_have_names(self) -> Self:
        for index, item in enumerate(self.ports):
            if len(self.ports) > 1 and not item.name:
                raise Broken("missing, each of several ports needs a name", "ports", index, "name")
        return self


class ServiceMetadata(Metadata):
    name: ServiceName


class Service(Resource):
    model_config = _LENIENT

    group: ClassVar[str] = ""
    versions: ClassVar[tuple[str, ...]] = ("v1",)
    status_is_read: ClassVar[bool] = True

    metadata: ServiceMetadata
    spec: ServiceSpec


# EndpointSlice


class EndpointConditions(LenientModel):
    ready: Flag | None = None
    """None counts as ready."""
    serving: Flag | None = None
    terminating: Flag | None = None


class TargetReference(LenientModel):
    kind: Text = ""
    namespace: Text = ""
    name: Text = ""


class Endpoint(LenientModel):
    addresses: Annotated[tuple[Text, ...], Field(min_length=1, max_length=100)]
    conditions: EndpointConditions = EndpointConditions()
    hostname: DnsLabel | None = None
    node_name: Text | None = None
    target_ref: TargetReference | None = None
    zone: Text | None = None


class EndpointPort(LenientModel):
    name: Text = ""
    port: Port | None = None
    """None is every port."""
    protocol: TransportProtocol = "TCP"
    app_protocol: Text | None = None


class EndpointSlice(Resource):
    model_config = _LENIENT

    group: ClassVar[str] = "discovery.k8s.io"
    versions: ClassVar[tuple[str, ...]] = ("v1",)

    address_type: Literal["IPv4", "IPv6", "FQDN"]
    endpoints: Annotated[tuple[Endpoint, ...], Field(max_length=1000)] = ()
    ports: Annotated[tuple[EndpointPort, ...], Field(max_length=100), AfterValidator(unique_by("name"))] = ()

    @model_validator(mode="after")
    def _addresses_fit_type(self) -> Self:
        for index, endpoint in enumerate(self.endpoints):
            for number, address in enumerate(endpoint.addresses):
                if not _fits(address, self.address_type):
                    message = (
                        f"found {quoted(address)}, addressType {self.address_type} accepts {_WORDS[self.address_type]}"
                    )
                    raise Broken(message, "endpoints", index, "addresses", number)
        return self


_WORDS = {"IPv4": "an IPv4 address", "IPv6": "an IPv6 address", "FQDN": "a lower-case hostname"}


def _fits(address: str, type_: str) -> bool:
    if type_ == "FQDN":
        return len(address) <= 253 and is_hostname(address) and not address.startswith("*")
    return is_address(address) and (":" in address) == (type_ == "IPv6")


# Pod


class ContainerPort(LenientModel):
    name: Text = ""
    container_port: Port
    protocol: TransportProtocol = "TCP"


class Container(LenientModel):
    name: Text = ""
    ports: tuple[ContainerPort, ...] = ()


class PodSpec(LenientModel):
    containers: tuple[Container, ...] = ()
    node_name: Text | None = None


class PodIP(LenientModel):
    ip: IpAddress


class PodCondition(LenientModel):
    type: Text
    status: Literal["True", "False", "Unknown"]


class PodStatus(LenientModel):
    phase: Text | None = None
    pod_ip: IpAddress | None = Field(default=None, alias="podIP")
    pod_ips: tuple[PodIP, ...] = Field(default=(), alias="podIPs")
    conditions: tuple[PodCondition, ...] = ()


class Pod(Resource):
    model_config = _LENIENT

    group: ClassVar[str] = ""
    versions: ClassVar[tuple[str, ...]] = ("v1",)
    status_is_read: ClassVar[bool] = True

    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()  # type: ignore[assignment]  # of a pod it is read, of others only merged


# Secret, ConfigMap, Namespace


def _decoded(value: object) -> object:
    if not isinstance(value, str):
        raise Broken("accepted is text in base64")
    try:
        return base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError):
        raise Broken("accepted is text in base64, found is something else") from None


Base64 = Annotated[bytes, BeforeValidator(_decoded)]


class Secret(Resource):
    """Its values are in `data`, decoded, those of `stringData` too. They are left out of `repr`."""

    model_config = _LENIENT

    group: ClassVar[str] = ""
    versions: ClassVar[tuple[str, ...]] = ("v1",)

    type: Text = "Opaque"
    data: dict[Text, Base64] = Field(default_factory=dict, repr=False)

    @model_validator(mode="before")
    @classmethod
    def _with_string_data(cls, document: Any) -> Any:  # before validation a document has any shape
        if not isinstance(document, dict) or not isinstance(document.get("stringData"), dict):
            return document
        texts = document["stringData"]
        for key, text in texts.items():
            if not isinstance(text, str):
                raise Broken("accepted is text", "stringData", key)
        encoded = {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()}
        data = document.get("data", {})
        return {**document, "data": {**data, **encoded}} if isinstance(data, dict) else document


class ConfigMap(Resource):
    model_config = _LENIENT

    group: ClassVar[str] = ""
    versions: ClassVar[tuple[str, ...]] = ("v1",)

    data: dict[Text, Text] = Field(default_factory=dict)
    binary_data: dict[Text, Base64] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names_adapters(self) -> Self:
        if is_marked(self.metadata.labels):
            adapters_of(self.data)
        return self


class NamespaceMetadata(Metadata):
    name: DnsLabel


class Namespace(Resource):
    model_config = _LENIENT

    group: ClassVar[str] = ""
    versions: ClassVar[tuple[str, ...]] = ("v1",)
    cluster_scoped: ClassVar[bool] = True

    metadata: NamespaceMetadata
