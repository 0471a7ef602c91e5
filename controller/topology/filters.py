"""Filters of rules and of backends, resolved into the values that templates render.

Names of headers that HTTP or the gateway itself gives a meaning are refused here, and so is what cannot stand in a
header or a path.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from controller.headers import STEERING_HEADERS
from controller.ir.filters import (
    Cors,
    Filter,
    FullPath,
    HeaderChange,
    Mirror,
    PathChange,
    PrefixPath,
    Redirect,
    RequestHeaders,
    ResponseHeaders,
    Rewrite,
)
from controller.ir.types import Target, ToPool, ToUpstream
from controller.resources.gateway_api import (
    BackendObjectReference,
    HTTPCORSFilter,
    HTTPHeader,
    HTTPHeaderFilter,
    HTTPPathModifier,
    HTTPRequestMirrorFilter,
    HTTPRequestRedirectFilter,
    HTTPRouteFilter,
    HTTPURLRewriteFilter,
)
from controller.resources.scalars import is_url_path
from controller.topology.conditions import Condition, refused, unresolved, unsupported
from controller.topology.unsupported import Scope, is_unsupported_filter

LONGEST_ARGUMENT: Final = 3900
"""Bytes that a value may have as it is written into nginx.conf, whose arguments end at 4,096."""

CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
"""Control characters except the tab, which may stand in the value of a header."""
_NAME: Final = re.compile(r"[A-Za-z0-9_-]+")
_READABLE_NAME: Final = re.compile(r"[A-Za-z0-9-]+")
"""Names whose value nginx can read, as $http_name: `_` and `-` are one there."""
_CONNECTION: Final = frozenset(
    ("connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade")
)
"""Headers of the connection or the framing of a message. Source: RFC 9110, section 7.6.1."""
_OF_THE_GATEWAY: Final = frozenset(("date", "server", "x-request-id"))
"""Headers of answers that nginx writes itself."""
_OWN_PREFIXES: Final = ("x-infergate-", "x-accel-")


_MANY: Final = frozenset(("RequestMirror",))
"""Types of filters that may stand in one place more than once."""

Targets = Callable[[BackendObjectReference], Target | Condition]
"""Where the requests of a reference go."""


def filters(
    items: Sequence[HTTPRouteFilter], *, prefix: str | None, at_backend: bool, where: str, targets: Targets
) -> tuple[Filter, ...] | Condition:
    """Filters of a rule or of one of its backends, in order, or why they cannot be served.

    `prefix` is the path of the match when that is a PathPrefix, without a trailing slash. `where` names the place in
    messages. A mirror that leads nowhere is left out; `unresolved_mirrors` says why.
    Reasons: UnsupportedValue, IncompatibleFilters.
    """
    types = [item.type for item in items if item.type not in _MANY]
    if {"RequestRedirect", "URLRewrite"} <= set(types):
        return refused("IncompatibleFilters", f"{where} accepts RequestRedirect or URLRewrite, found both")
    if len(set(types)) < len(types):
        return refused("IncompatibleFilters", f"{where} accepts a filter of each type once, found {', '.join(types)}")
    scope = Scope.BACKEND_FILTER if at_backend else Scope.RULE_FILTER
    resolved: list[Filter] = []
    for number, item in enumerate(items):
        place = f"{where}[{number}]"
        if is_unsupported_filter(item.type, scope=scope):
            at = " of a backend" if at_backend else ""
            return unsupported(f"{place}.type: filter {item.type}{at} is not supported yet")
        value = _filter(item, prefix=prefix, place=place, targets=targets)
        if isinstance(value, Condition):
            return value
        if value is not None:
            resolved.append(value)
    return tuple(resolved)


def rewritten_and_redirected(
    around: Iterable[HTTPRouteFilter], items: Iterable[HTTPRouteFilter], *, where: str
) -> Condition | None:
    """Why filters of a backend cannot be served beside those of its rule, `around` them.

    Source: Gateway API, HTTPURLRewriteFilter. That a rule with a redirect has no backends is checked where it is read.
    """
    if any(item.type == "URLRewrite" for item in around) and any(item.type == "RequestRedirect" for item in items):
        return refused("IncompatibleFilters", f"{where} accepts no RequestRedirect beside the URLRewrite of its rule")
    return None


def unresolved_mirrors(items: Iterable[HTTPRouteFilter], *, where: str, targets: Targets) -> list[Condition]:
    """What is wrong with the references of mirrors. The rest of the rule serves.

    Source: Gateway API, HTTPRequestMirrorFilter.backendRef.
    """
    problems = []
    for number, item in enumerate(items):
        if item.request_mirror is not None:
            place = f"{where}[{number}].requestMirror.backendRef"
            target = targets(item.request_mirror.backend_ref)
            if isinstance(target, Condition):
                problems.append(unresolved(target.reason, f"{place}: {target.message}"))
    return problems


def uncopied(items: Sequence[HTTPRouteFilter], *, backends: Sequence[Sequence[HTTPRouteFilter]]) -> list[str]:
    """Mirrors that copy nothing, since a redirect answers before nginx makes copies.

    `items` are the filters of a rule, `backends` those of each of its backends. A mirror of the rule beside the
    redirect of one backend copies the requests of the others.
    """
    mirrors = [f"filters[{number}].requestMirror" for number in _of_type("RequestMirror", items)]
    found = [f"{mirror} beside RequestRedirect" for mirror in mirrors if _of_type("RequestRedirect", items)]
    for position, own in enumerate(backends):
        if _of_type("RequestRedirect", own):
            place = f"backendRefs[{position}]"
            found += [f"{mirror} for {place}, which has a RequestRedirect" for mirror in mirrors]
            found += [
                f"{place}.filters[{number}].requestMirror beside RequestRedirect"
                for number in _of_type("RequestMirror", own)
            ]
    return found


def replaces_prefix(items: Iterable[HTTPRouteFilter]) -> bool:
    """Whether a filter depends on the path of the match."""
    return any(
        modifier is not None and modifier.path is not None and modifier.path.type == "ReplacePrefixMatch"
        for item in items
        for modifier in (item.request_redirect, item.url_rewrite)
    )


def _of_type(type_: str, items: Iterable[HTTPRouteFilter]) -> list[int]:
    return [number for number, item in enumerate(items) if item.type == type_]


def _filter(item: HTTPRouteFilter, *, prefix: str | None, place: str, targets: Targets) -> Filter | Condition | None:
    if item.request_mirror is not None:
        return _mirror(item.request_mirror, targets=targets)
    if item.request_header_modifier is not None:
        change = _headers(item.request_header_modifier, place=f"{place}.requestHeaderModifier", of_request=True)
        return change if isinstance(change, Condition) else RequestHeaders(change)
    if item.response_header_modifier is not None:
        change = _headers(item.response_header_modifier, place=f"{place}.responseHeaderModifier", of_request=False)
        return change if isinstance(change, Condition) else ResponseHeaders(change)
    if item.cors is not None:
        return _cors(item.cors, place=f"{place}.cors")
    if item.request_redirect is not None:
        return _redirect(item.request_redirect, prefix=prefix, place=f"{place}.requestRedirect")
    if item.url_rewrite is not None:
        return _rewrite(item.url_rewrite, prefix=prefix, place=f"{place}.urlRewrite")
    return unsupported(f"{place}.type: filter {item.type} is not known")


def _headers(modifier: HTTPHeaderFilter, *, place: str, of_request: bool) -> HeaderChange | Condition:
    """Of several entries for one name in a list the first counts; a name in two lists is refused.

    Source: Gateway API, HTTPHeader.name and HTTPHeaderFilter.
    """
    assign, append = _first_of_each(modifier.set), _first_of_each(modifier.add)
    remove = dict.fromkeys(name.lower() for name in modifier.remove)
    names = [*assign, *append, *remove]
    for name in names:
        problem = name_problem(name, readable=name in append, of_request=of_request)
        if problem:
            return unsupported(f"{place}: {problem}")
        if names.count(name) > 1:
            return unsupported(f"{place}: header {name} is in more than one of set, add and remove")
    for name, value in (*assign.items(), *append.items()):
        problem = value_problem(value)
        if problem:
            return unsupported(f"{place}: the value of header {name} {problem}")
    return HeaderChange(assign=tuple(assign.items()), append=tuple(append.items()), remove=tuple(remove))


def _first_of_each(headers: Sequence[HTTPHeader]) -> dict[str, str]:
    values: dict[str, str] = {}
    for header in headers:
        values.setdefault(header.name.lower(), header.value)
    return values


def name_problem(name: str, *, readable: bool, of_request: bool) -> str | None:
    """What is wrong with the name of a header that users set, in lower case."""
    if readable and not _READABLE_NAME.fullmatch(name):
        return f"the name of an added header accepts letters, digits and '-', found {name!a}"
    if not _NAME.fullmatch(name):
        return f"the name of a header accepts letters, digits, '-' and '_', found {name!a}"
    if name in _CONNECTION or (of_request and name == "host"):
        instead = "; URLRewrite has a hostname" if name == "host" else ""
        return f"header {name} is the gateway's to set{instead}"
    if not of_request and name in _OF_THE_GATEWAY:
        return f"header {name} of an answer is the gateway's own"
    if name in STEERING_HEADERS or name.startswith(_OWN_PREFIXES):
        return f"header {name} steers the gateway"
    return None


def value_problem(value: str) -> str | None:
    """What is wrong with the value of a header: empty, too long, or with control characters."""
    if not value:
        return "is empty"
    # A dollar sign is written as `${dollar}`, quotes and backslashes with another backslash.
    written = len(value.encode()) + 8 * value.count("$") + value.count("\\") + value.count('"')
    if written > LONGEST_ARGUMENT:
        return f"is too long: it takes {written} bytes in nginx.conf, which accepts {LONGEST_ARGUMENT}"
    if CONTROL.search(value):
        return "has a control character"
    return None


def _mirror(item: HTTPRequestMirrorFilter, *, targets: Targets) -> Mirror | None:
    target = targets(item.backend_ref)
    if item.fraction is not None:
        share = (item.fraction.numerator, item.fraction.denominator)
    else:
        share = (100 if item.percent is None else item.percent, 100)
    if not share[0]:
        return None
    match target:
        case ToUpstream(upstream=upstream):
            return Mirror(upstream, *share)
        case ToPool(pool=pool, tls=tls):
            return Mirror("", *share, pool=pool, tls=tls)
        case _:
            return None


def _cors(item: HTTPCORSFilter, *, place: str) -> Cors | Condition:
    for field, names in (("allowHeaders", item.allow_headers), ("exposeHeaders", item.expose_headers)):
        problem = value_problem(", ".join(names)) if names else None
        if problem:
            return unsupported(f"{place}.{field} {problem}")
    return Cors(
        origins=tuple(sorted(origin.lower() for origin in item.allow_origins)),
        credentials=bool(item.allow_credentials),
        methods=item.allow_methods,
        headers=item.allow_headers,
        expose=item.expose_headers,
        max_age=item.max_age,
    )


def _redirect(item: HTTPRequestRedirectFilter, *, prefix: str | None, place: str) -> Redirect | Condition:
    path = _path(item.path, prefix=prefix, place=f"{place}.path")
    if isinstance(path, Condition):
        return path
    return Redirect(
        status=item.status_code,
        scheme=item.scheme,
        hostname=item.hostname.lower() if item.hostname else None,
        port=item.port,
        path=path,
    )


def _rewrite(item: HTTPURLRewriteFilter, *, prefix: str | None, place: str) -> Rewrite | Condition:
    path = _path(item.path, prefix=prefix, place=f"{place}.path")
    if isinstance(path, Condition):
        return path
    return Rewrite(hostname=item.hostname.lower() if item.hostname else None, path=path)


def _path(item: HTTPPathModifier | None, *, prefix: str | None, place: str) -> PathChange | Condition | None:
    """Source: Gateway API, HTTPPathModifier."""
    if item is None:
        return None
    if item.type == "ReplaceFullPath":
        path = item.replace_full_path or "/"
        problem = _path_problem(path)
        return unsupported(f"{place}.replaceFullPath {problem}") if problem else FullPath(path)
    if prefix is None:
        return unsupported(f"{place}.replacePrefixMatch needs matches of type PathPrefix")
    replacement = (item.replace_prefix_match or "").rstrip("/")
    problem = _path_problem(replacement or "/")
    return unsupported(f"{place}.replacePrefixMatch {problem}") if problem else PrefixPath(prefix, replacement)


def _path_problem(path: str) -> str | None:
    if not path.startswith("/"):
        return f"starts with '/', found {path!a}"
    if not is_url_path(path):
        return f"accepts the characters of a URL path, others as %XX, found {path!a}"
    return None
