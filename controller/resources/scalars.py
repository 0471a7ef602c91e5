"""Strings and numbers of the resources, with what the Kubernetes schemas allow in them.

Every type is strict: a number in quotes is not a number. A rule that spans several fields raises `Broken`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field

Location = tuple[str | int, ...]
"""Path of a value in a document: names of fields and indexes of items."""


class Broken(ValueError):
    """A rule does not hold, at a place below the value that is validated."""

    def __init__(self, message: str, *location: str | int) -> None:
        super().__init__(message)
        self.message = message
        self.location: Location = location


_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_DOMAIN_PATH = rf"{_SUBDOMAIN}\/[A-Za-z0-9\/\-._~%!$&'()*+,;=:]+"
_PATH_CHARACTERS = r"(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+"
_ORIGIN = r"(^\*$)|(^(http(s)?):\/\/(((\*\.)?([a-zA-Z0-9\-]+\.)*[a-zA-Z0-9-]+|\*)(:([0-9]{1,5}))?)$)"

_DNS_LABEL = f"^{_LABEL}$"
_DNS_NAME = f"^{_SUBDOMAIN}$"
_NAMESPACE = f"^$|^{_LABEL}$"
_SERVICE_NAME = "^[a-z]([-a-z0-9]*[a-z0-9])?$"
_GROUP = f"^$|^{_SUBDOMAIN}$"
_KIND = "^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$"
_CONTROLLER = f"^{_DOMAIN_PATH}$"
_HOSTNAME = rf"^(\*\.)?{_SUBDOMAIN}$"
_HEADER_NAME = r"^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$"
_HEADER_VALUE = r"^[!-~]+([\t ]?[!-~]+)*$"
_DURATION = "^([0-9]{1,5}(h|m|s|ms)){1,4}$"
_URL_PATH = f"^{_PATH_CHARACTERS}$"
_ABSOLUTE_URI = r"^[A-Za-z][A-Za-z0-9+.\-]*://[^/?#\s]*[^?#\s]*(\?[^#\s]*)?(#\S*)?$"
_LABEL_VALUE = "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"
_PROTOCOL = rf"^[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?$|{_SUBDOMAIN}\/[A-Za-z0-9]+$"
_ADDRESS_TYPE = rf"^Hostname|IPAddress|NamedAddress|{_DOMAIN_PATH}$"

WORDS: Mapping[str, str] = {
    _DNS_LABEL: "lower-case letters, digits and '-', starting and ending with a letter or digit",
    _NAMESPACE: "lower-case letters, digits and '-', starting and ending with a letter or digit",
    _DNS_NAME: "lower-case letters, digits, '-' and '.', each part starting and ending with a letter or digit",
    _SERVICE_NAME: "lower-case letters, digits and '-', starting with a letter, ending with a letter or digit",
    _GROUP: "an API group such as gateway.networking.k8s.io, or nothing for the core group",
    _KIND: "a kind such as Service: letters, digits and '-', starting with a letter",
    _CONTROLLER: "a domain and a path, such as example.com/controller",
    _HOSTNAME: "a lower-case hostname, which may start with '*.'",
    _HEADER_NAME: "the name of a header: letters, digits and !#$%&'*+-.^_`|~",
    _HEADER_VALUE: "visible ASCII characters, with single spaces or tabs between them",
    _DURATION: "a duration such as 500ms, 10s or 1h30m",
    _ABSOLUTE_URI: "a URI with a scheme and an authority, such as spiffe://example.com/name",
    _URL_PATH: "the characters of a URL path, others written as %XX",
    _LABEL_VALUE: "letters, digits, '-', '_' and '.', starting and ending with a letter or digit",
    _PROTOCOL: "a protocol such as HTTP, HTTPS, TLS, TCP or UDP, or one such as example.com/NAME",
    _ADDRESS_TYPE: "IPAddress, Hostname, NamedAddress, or a type such as example.com/name",
    _ORIGIN: "an origin such as https://example.com or https://*.example.com:8443, or '*'",
}
"""What a pattern accepts, in words."""

Text = Annotated[str, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]

DnsLabel = Annotated[str, Field(strict=True, min_length=1, max_length=63, pattern=_DNS_LABEL)]
DnsName = Annotated[str, Field(strict=True, min_length=1, max_length=253, pattern=_DNS_NAME)]
NamespaceName = Annotated[str, Field(strict=True, max_length=63, pattern=_NAMESPACE)]
"""Empty for what is not in a namespace."""
ServiceName = Annotated[str, Field(strict=True, min_length=1, max_length=63, pattern=_SERVICE_NAME)]
ObjectName = Annotated[str, Field(strict=True, min_length=1, max_length=253)]
Group = Annotated[str, Field(strict=True, max_length=253, pattern=_GROUP)]
Kind = Annotated[str, Field(strict=True, min_length=1, max_length=63, pattern=_KIND)]
ControllerName = Annotated[str, Field(strict=True, min_length=1, max_length=253, pattern=_CONTROLLER)]
Hostname = Annotated[str, Field(strict=True, min_length=1, max_length=253, pattern=_HOSTNAME)]
PreciseHostname = DnsName
Protocol = Annotated[str, Field(strict=True, min_length=1, max_length=255, pattern=_PROTOCOL)]
AddressType = Annotated[str, Field(strict=True, min_length=1, max_length=253, pattern=_ADDRESS_TYPE)]
HeaderName = Annotated[str, Field(strict=True, min_length=1, max_length=256, pattern=_HEADER_NAME)]
HeaderValue = Annotated[str, Field(strict=True, min_length=1, max_length=4096, pattern=_HEADER_VALUE)]
Origin = Annotated[str, Field(strict=True, min_length=1, max_length=253, pattern=_ORIGIN)]
UrlPath = Annotated[str, Field(strict=True, max_length=1024, pattern=_URL_PATH)]
AbsoluteUri = Annotated[str, Field(strict=True, min_length=1, max_length=253, pattern=_ABSOLUTE_URI)]
Duration = Annotated[str, Field(strict=True, pattern=_DURATION)]
"""As written, such as `1h30m`; `seconds` gives its length."""
Port = Annotated[int, Field(strict=True, ge=1, le=65535)]
LabelValue = Annotated[str, Field(strict=True, max_length=63, pattern=_LABEL_VALUE)]
LongText = Annotated[str, Field(strict=True, max_length=4096)]


def seconds(duration: Duration) -> float:
    """Length of a duration such as `1h30m` or `500ms`.

    Source: GEP-2257.
    """
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
    return sum(float(count) * units[unit] for count, unit in re.findall("([0-9]+)(ms|h|m|s)", duration))


def is_url_path(value: str) -> bool:
    """Whether a path consists of characters that a URL path may hold."""
    return re.fullmatch(_PATH_CHARACTERS, value) is not None


def is_hostname(value: str) -> bool:
    """Whether it is a lower-case hostname, which may start with `*.`."""
    return re.fullmatch(_HOSTNAME, value) is not None and not value.endswith("\n")


def is_address(value: str) -> bool:
    """Whether it is an IPv4 or IPv6 address, without a zone."""
    try:
        return isinstance(ip_address(value), IPv4Address | IPv6Address) and "%" not in value
    except ValueError:
        return False


def _is_address(value: str) -> str:
    if not is_address(value):
        raise Broken(f"found {quoted(value)}, accepted is an IPv4 or IPv6 address")
    return value


IpAddress = Annotated[str, Field(strict=True, max_length=64), AfterValidator(_is_address)]


def quoted(value: object, *, limit: int = 80) -> str:
    """A value as it is shown in a message: in one line, cut after `limit` characters."""
    if isinstance(value, str):
        if len(value) > limit:
            return f'{_printable(value[:limit])[:-1]}…" ({len(value)} characters)'
        return _printable(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, Sequence | set | frozenset):
        return "a list"
    text = str(value)
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"


def shown_name(name: str) -> str:
    """A name as it is shown in a subject: as it is, or quoted and cut when it could not be one."""
    return name if len(name) <= 64 and name.isprintable() else quoted(name, limit=48)


def _printable(value: str) -> str:
    if '"' not in value and "\\" not in value and value.isprintable():
        return f'"{value}"'
    return '"' + value.encode("unicode_escape").decode().replace('"', r"\"") + '"'


_Item = TypeVar("_Item")


def unique_by(field: str) -> Callable[[tuple[_Item, ...]], tuple[_Item, ...]]:
    """A rule: no two items share the value of a field, named as in Python and of one word."""

    def check(items: tuple[_Item, ...]) -> tuple[_Item, ...]:
        first: dict[object, int] = {}
        for index, item in enumerate(items):
            value = getattr(item, field)
            if first.setdefault(value, index) != index:
                raise Broken(f"found {quoted(value)}, which item {first[value]} has too", index, field)
        return items

    return check


def unique(items: tuple[_Item, ...]) -> tuple[_Item, ...]:
    """A rule: no two items are equal."""
    first: dict[object, int] = {}
    for index, item in enumerate(items):
        if first.setdefault(item, index) != index:
            raise Broken(f"found {quoted(item)}, which is item {first[item]} too", index)
    return items


def wildcard_stands_alone(items: tuple[str, ...]) -> tuple[str, ...]:
    """A rule: `*` comes without other items.

    Source: Gateway API, HTTPCORSFilter.
    """
    if "*" in items and len(items) > 1:
        raise Broken("found '*' beside other items, accepted is '*' alone or a list without it", items.index("*"))
    return items


_KEY = re.compile(rf"({_SUBDOMAIN}/)?([A-Za-z0-9][-A-Za-z0-9_.]{{0,61}})?[A-Za-z0-9]")


def qualified_keys(values: dict[str, str]) -> dict[str, str]:
    """A rule: each key is a name of up to 63 characters, after an optional DNS name and '/'."""
    for key in values:
        if not _KEY.fullmatch(key) or len(key.rpartition("/")[0]) > 252:
            accepted = "a name of up to 63 letters, digits, '-', '_' and '.', optionally after a domain and '/'"
            raise Broken(f"found the key {quoted(key)}, accepted is {accepted}", key)
    return values


Labels = Annotated[dict[Text, LabelValue], AfterValidator(qualified_keys)]
