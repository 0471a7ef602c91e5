"""Renders a configuration into the files of a bundle."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from controller.bundle import VERSION_PATH, Bundle, BundleFile, version_of
from controller.completions import COMPLETIONS_FILE
from controller.dialed import DIALED_FILE
from controller.ir.streams import Opening, StreamServer, Transport
from controller.ir.types import GatewayConfig, Server, ToPool
from controller.pools import pools_of
from controller.render.certificates import authorities_name, certificate_name
from controller.render.config_view import config_view
from controller.render.destinations import targets_of
from controller.render.dialed import dialed_file, dialed_pools, is_dialed
from controller.render.environment import environment, files_directory
from controller.render.headers import answer_headers, request_headers
from controller.render.layout import compact
from controller.render.memory import Memory
from controller.render.scripts import needed_scripts
from controller.render.streams import streams_view
from controller.resources.meta import Key

VERSION_FILE = "version.conf"
ENDPOINTS_FILE = "endpoints.conf"
"""Changes when pods come and go. The picker knows them without it, so a reload for it alone may wait."""

_ONE_SUBJECT = (
    r"(HTTPRoute|GRPCRoute|TLSRoute|TCPRoute|UDPRoute|Gateway|ListenerSet|InferencePool|Service) "
    r"([a-z0-9.-]+)/([a-z0-9.-]+)(?:, listener ([a-z0-9.-]+))?"
)
_SUBJECT = re.compile(_ONE_SUBJECT)
_SUBJECTS = re.compile(rf"\s*# {_ONE_SUBJECT}(?:, {_ONE_SUBJECT})*")
"""What opens a fragment's comment. Text of users may follow, and must not name a subject."""
_OPENS = re.compile(r"(?P<what>port|tcp|udp)_(?P<port>\d+)\.conf")
_GROUPS = {
    "HTTPRoute": "gateway.networking.k8s.io",
    "TLSRoute": "gateway.networking.k8s.io",
    "TCPRoute": "gateway.networking.k8s.io",
    "UDPRoute": "gateway.networking.k8s.io",
    "GRPCRoute": "gateway.networking.k8s.io",
    "Gateway": "gateway.networking.k8s.io",
    "ListenerSet": "gateway.networking.k8s.io",
    "InferencePool": "inference.networking.k8s.io",
    "Service": "",
}


@dataclass(frozen=True)
class RenderSettings:
    """What the rendered files take from the place they run in, not from resources."""

    listen_addresses: tuple[str, ...] = ("127.0.0.1",)
    """Addresses on which listeners' ports are opened, an IPv6 address in brackets."""
    worker_processes: int | Literal["auto"] = 1
    """`auto` leaves it to the machine that the files go to."""
    worker_connections: int = 16384
    max_open_files: int = 65536
    max_body_size: int = 128 * 1024 * 1024
    """Bytes of a request's body; larger ones are answered 413. Prompts with images and audio files are large."""
    max_large_requests: int = 4096
    """Requests under way with a body of 100 KB and more, up to 256 KB of memory each; further ones are answered 429."""
    access_log: str = "/dev/stdout"
    """Path of the access log, relative to the state directory."""

    @property
    def rewritten_memory(self) -> int:
        """Bytes of memory that bodies on disk may take together whose model is rewritten, each twice its length: a
        quarter of what large requests may take. Further ones are answered 429."""
        return self.max_large_requests * 64 * 1024


def opening_of(path: str) -> Opening | None:
    """The port that a file of a bundle opens; None when it opens none."""
    found = _OPENS.fullmatch(path)
    if found is None:
        return None
    return Opening(int(found["port"]), Transport.UDP if found["what"] == "udp" else Transport.TCP)


def render(config: GatewayConfig, settings: RenderSettings, *, memory: Memory | None = None) -> Bundle:
    """The files of a configuration, with their version, and its pools. The same configuration gives the same bytes.

    `memory` is that of the renderings before.
    """
    memory = memory or Memory()
    view = config_view(config, memory=memory, around=(settings,))
    streams = streams_view(config)
    context = {
        "name": config.name,
        "settings": settings,
        "completions": COMPLETIONS_FILE,
        "view": view,
        "remembered": memory.text,
        "remembered_block": memory.block,
        "streams": streams,
        "base_headers": request_headers(),
        "call_headers": request_headers(is_call=True),
        "base_hidden": answer_headers().hidden,
    }
    files = {
        path: _template(template, context)
        for path, template in {
            ENDPOINTS_FILE: "endpoints.conf.j2",
            "upstreams.conf": "upstreams.conf.j2",
            "rules.conf": "rules.conf.j2",
        }.items()
    }
    for port in view.ports:
        files[f"port_{port.port}.conf"] = _template("port.conf.j2", {**context, "port": port})
    if view.copies:
        files["copies.conf"] = _template("copies.conf.j2", context)
    if streams.ports:
        files["connections.conf"] = _template("connections.conf.j2", context)
    for opened in streams.ports:
        files[opened.file] = _template("connections_port.conf.j2", {**context, "port": opened})
    scripts = needed_scripts(files.values())
    files["nginx.conf"] = _template("nginx.conf.j2", {**context, "scripts": scripts})
    if "models" in scripts:
        files["base_models.json"] = json.dumps(dict(config.base_models), indent=0, ensure_ascii=False).encode()
    files.update(_static_files())
    files.update(_authorities_files(config))
    secrets = _certificate_files(config)
    if dialed := dialed_file(config):
        secrets[DIALED_FILE] = dialed
    version = version_of({**files, **secrets})
    files[VERSION_FILE] = f'location = {VERSION_PATH} {{\n    return 200 "{version}";\n}}\n'.encode()
    return Bundle(
        gateway=config.name,
        version=version,
        files=tuple(sorted([*_bundle_files(files, secret=False), *_bundle_files(secrets, secret=True)])),
        pools=pools_of(config.pools),
    )


def differs_in_endpoints_only(old: Bundle, new: Bundle) -> bool:
    """Whether two bundles serve the same rules, and only endpoints of pools came or went."""
    passing = {ENDPOINTS_FILE, VERSION_FILE}
    before, after = (
        [(item.path, item.content) for item in bundle.files if item.path not in passing] for bundle in (old, new)
    )
    return before == after


@dataclass(frozen=True)
class Subject:
    """What a fragment of a rendered file was made from."""

    key: Key
    listener: str | None
    """Name of the listener when the key is a Gateway's or a ListenerSet's."""


def trace(bundle: Bundle, *, path: str, line: int) -> tuple[Subject, ...]:
    """The resources that a line of a rendered file comes from, as the comment says that opens its fragment.

    The comment may have several lines. Empty when the line belongs to no resource.
    """
    text = next((item.content for item in bundle.files if item.path == path), b"").decode("utf-8", "surrogateescape")
    opening: list[str] = []
    for above in reversed(text.splitlines()[:line]):
        if found := _SUBJECTS.match(above):
            opening.insert(0, found[0])
        elif opening:
            break
    return tuple(
        Subject(Key(_GROUPS[kind], kind, namespace, name), listener or None)
        for kind, namespace, name, listener in _SUBJECT.findall("\n".join(opening))
    )


def _template(name: str, context: Mapping[str, object]) -> bytes:
    text = environment().get_template(name).render(context)
    return compact(text).encode("utf-8", "surrogateescape")


def _certificate_files(config: GatewayConfig) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    servers: list[Server | StreamServer] = [*config.servers, *config.streams]
    rules = [server.rule for server in config.streams if server.rule is not None]
    shown = [item.client_certificate for item in config.servers if item.client_certificate]
    shown += [item.client_certificate for item in rules if item.client_certificate]
    for certificate in (*(one for server in servers for one in server.certificates), *shown):
        stem = certificate_name(certificate)
        files[f"{stem}.crt"] = certificate.chain
        files[f"{stem}.key"] = certificate.key
    return files


def _authorities_files(config: GatewayConfig) -> dict[str, bytes]:
    """Certificates by which backends and clients are known."""
    dialed = dialed_pools(config)
    found = [item.tls for item in config.upstreams if not is_dialed(item.tls)]
    pools = [target for target in targets_of(config) if isinstance(target, ToPool)]
    found += [target.tls for target in pools if target.pool not in dialed]
    found += [item.tls for server in config.streams if server.rule for item in server.rule.backends]
    known = [tls.authorities for tls in found if tls]
    known += [item.client_validation.authorities for item in config.servers if item.client_validation]
    return {authorities_name(certificates): certificates for certificates in known}


def _bundle_files(files: Mapping[str, bytes], *, secret: bool) -> Iterable[BundleFile]:
    return (BundleFile(path=path, content=content, secret=secret) for path, content in files.items())


@cache
def _static_files() -> dict[str, bytes]:
    """Files of `nginx/` by their path in a bundle."""
    root = files_directory() / "nginx"
    found: list[Path] = [path for path in root.rglob("*") if path.is_file()]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(found)}
