"""`infergate controller`: the control plane in a cluster."""

import argparse
import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from controller.control_plane.loop import Loop
from controller.control_plane.metrics import registry_of
from controller.control_plane.provisioning import Provisioning
from controller.control_plane.publishing import Publishing
from controller.dataplane.certificates import AuthorityStore, Certificates
from controller.dataplane.manifests import ControlPlane, name_of
from controller.dataplane.pki import Authority
from controller.dataplane.secret_store import SecretStore
from controller.dataplane.server import BundleServer
from controller.dataplane.tokens import Identity, TokenReviews
from controller.errors import ApiError, SettingInvalid
from controller.garbage import collect_seldom
from controller.kube import Api, configuration
from controller.plugins.installed import installed
from controller.probes import Probes
from controller.provider.kubernetes.definitions import Definitions
from controller.provider.kubernetes.events import EventRecorder
from controller.provider.kubernetes.lease import Leadership
from controller.provider.kubernetes.provider import KubernetesProvider
from controller.provider.kubernetes.statuses import StatusWriter
from controller.provider.kubernetes.versions import Versions
from controller.resources.core import Service
from controller.resources.gateway_api import CONTROLLER_NAME, Gateway
from controller.resources.meta import Key
from controller.settings import system_authorities
from controller.status.features import FIELDS, features_without
from controller.status.notices import rejected

log = logging.getLogger(__name__)

_STATUSES_WAIT: Final = 5.0
"""Seconds from the beginning of a stream of changes for which statuses wait for its end: each costs the API server as
much as a change does."""
_RETRY: Final = 2.0
"""Seconds after which an API server that was away at the start is asked again."""


class ControllerSettings(BaseModel):
    """What the command line says."""

    model_config = ConfigDict(frozen=True)

    namespace: str = Field(min_length=1)
    """Where the control plane runs, with its Lease and its Secret."""
    identity: str = Field(min_length=1)
    """Of this replica, which no other has."""
    service: str = Field(min_length=1)
    """Of the headless Service in which instances find the replicas; also the name of the Lease."""
    image: str = Field(min_length=1)
    """Of data planes, where GatewayParameters say nothing else."""
    listen_port: int = Field(default=8443, ge=0, le=65535)
    health_port: int = Field(default=8081, ge=0, le=65535)
    kubeconfig: Path | None = None
    """None for a process in a pod."""
    watch_namespace: tuple[str, ...] = ()
    """Those whose resources are read; empty for all."""

    @property
    def host(self) -> str:
        """Name under which instances ask."""
        return f"{self.service}.{self.namespace}.svc"


_OPTIONS: Final = {
    "namespace": ("NAME", "POD_NAMESPACE", "namespace of the control plane"),
    "identity": ("NAME", "POD_NAME", "name of this replica; default: the name of the host"),
    "service": ("NAME", "", "headless Service in which data planes find the control plane"),
    "image": ("IMAGE", "", "image of data planes"),
    "listen-port": ("PORT", "", "where data planes ask; default: 8443"),
    "health-port": ("PORT", "", "where /healthz, /readyz and /metrics answer; default: 8081"),
    "kubeconfig": ("FILE", "KUBECONFIG", "how the API server is reached; default: as a pod"),
}
"""Each with its placeholder, the variable that gives its default, and its meaning."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for name, (placeholder, variable, meaning) in _OPTIONS.items():
        parser.add_argument(f"--{name}", metavar=placeholder, default=os.environ.get(variable) or None, help=meaning)
    parser.add_argument(
        "--watch-namespace",
        metavar="NAME",
        action="append",
        help="namespace whose resources are read; may be given more than once; default: all",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serves until SIGTERM or SIGINT."""
    collect_seldom()
    return asyncio.run(_until_signal(_settings(arguments)))


def _settings(arguments: argparse.Namespace) -> ControllerSettings:
    """Raises SettingInvalid, which names the option."""
    given = {name: value for name, value in vars(arguments).items() if name in ControllerSettings.model_fields}
    given = {"identity": socket.gethostname()} | {name: value for name, value in given.items() if value is not None}
    try:
        return ControllerSettings.model_validate(given)
    except ValidationError as problem:
        first = problem.errors()[0]
        option = str(first["loc"][0]).replace("_", "-")
        raise SettingInvalid(f"--{option}: {first['msg'].lower()}") from problem


async def _until_signal(settings: ControllerSettings) -> int:
    serving = asyncio.ensure_future(_serve(settings))
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sign, serving.cancel)
    try:
        await serving
    except asyncio.CancelledError:
        log.info("control plane ends")
    return 0


class _Trusted:
    """A store that remembers whom instances are to trust, and says when that changes."""

    def __init__(self, store: AuthorityStore, *, on_change: Callable[[], None]) -> None:
        self._store = store
        self._on_change = on_change
        self.certificates = ""
        """As PEM."""

    async def load(self) -> Authority | None:
        """See `AuthorityStore`."""
        kept = await self._store.load()
        if kept is not None:
            self._note(kept)
        return kept

    async def replace(self, before: Authority | None, after: Authority) -> Authority:
        """See `AuthorityStore`."""
        kept = await self._store.replace(before, after)
        self._note(kept)
        return kept

    def _note(self, kept: Authority) -> None:
        certificates = kept.trusted.decode()
        if certificates != self.certificates:
            self.certificates = certificates
            self._on_change()


class _Replica:
    """One replica of the control plane."""

    def __init__(self, api: Api, settings: ControllerSettings) -> None:
        self._settings = settings
        self._rejected: set[Key] = set()
        """Objects that cannot be read."""
        self._provider = KubernetesProvider(api, namespaces=settings.watch_namespace, on_seen=self._see)
        self._recorder = EventRecorder(
            api, held=self._provider.held, controller_name=CONTROLLER_NAME, instance=settings.identity
        )
        self._leadership = Leadership(
            api,
            namespace=settings.namespace,
            name=settings.service,
            identity=settings.identity,
            on_change=self._lead,
        )
        self._writer = StatusWriter(
            api,
            held=self._provider.held,
            controller_name=CONTROLLER_NAME,
            is_leader=lambda: self._leadership.is_leader,
            outage=self._provider.outage,
            on_notice=self._recorder.note,
            calm=partial(self._provider.calm, longest=_STATUSES_WAIT),
        )
        self._server = BundleServer(
            TokenReviews(api).review,
            _is_theirs,
            address=("", settings.listen_port),
            on_report=lambda gateway: self._loop.wake(),
        )
        store = SecretStore(api, settings.namespace, f"{settings.service}-ca")
        self._trusted = _Trusted(store, on_change=lambda: self._provisioning.look_at_all())
        self._certificates = Certificates(
            self._trusted, (settings.host,), self._server.use, clock=lambda: datetime.now(UTC)
        )
        self._provisioning = Provisioning(
            api,
            self._control_plane,
            is_leader=lambda: self._leadership.is_leader,
            on_change=lambda: self._loop.wake(),
        )
        catalogue = installed()
        publishing = Publishing(self._server, clock=time.monotonic, catalogue=catalogue)
        self._definitions = Definitions(api, sorted({*FIELDS.values()}), on_change=lambda: self._loop.wake())
        self._versions = Versions(api, on_change=lambda: self._loop.wake())
        self._loop = Loop(
            publishing,
            self._provisioning,
            self._writer.want,
            features=lambda: features_without(self._definitions.missing),
            versions=lambda: self._versions.found,
            catalogue=catalogue,
            system_authorities=system_authorities(),
        )
        self._registry = registry_of(
            leads=lambda: self._leadership.is_leader, gateways=lambda: len(self._provisioning.gateways)
        )

    async def serve(self) -> None:
        """Works until it is cancelled, or until a part of it fails."""
        probes = Probes(self._registry, why_not_ready=self._why_not_ready, why_not_healthy=_nothing_wrong)
        async with probes.listening(f":{self._settings.health_port}"):
            await _at_last(self._certificates.look)
            async with self._server, asyncio.TaskGroup() as group:
                log.info("control plane begins", extra={"host": self._settings.host, "port": self._server.port})
                for program in (
                    self._loop.run(self._provider.snapshots()),
                    self._definitions.run(),
                    self._versions.run(),
                    self._leadership.run(),
                    self._provisioning.run(),
                    self._writer.run(),
                    self._recorder.run(),
                    self._certificates.keep(),
                ):
                    group.create_task(program)

    def _control_plane(self) -> ControlPlane:
        port = self._server.port
        return ControlPlane(self._settings.image, f"https://{self._settings.host}:{port}", self._trusted.certificates)

    def _see(self, key: Key) -> None:
        """An object is another one, its status included."""
        self._writer.look_at(key)
        if (key.group, key.kind) == (Service.group, Service.__name__):
            for gateway in self._provisioning.gateways:
                if (gateway.namespace, name_of(gateway)) == (key.namespace, key.name):
                    self._provisioning.look_at(gateway)
        held = self._provider.held(key)
        self._rejected.discard(key)
        if held is not None and held.rejections:
            self._rejected.add(key)
            self._tell_rejected(key)

    def _lead(self, leads: bool) -> None:
        """This replica begins to write, or ceases to."""
        if leads:
            self._writer.look_at_all()
            self._provisioning.look_at_all()
            for key in sorted(self._rejected):
                self._tell_rejected(key)

    def _tell_rejected(self, key: Key) -> None:
        held = self._provider.held(key)
        if held is None or not self._leadership.is_leader:
            return
        for notice in rejected(key, held.rejections):
            self._recorder.note(notice)

    async def _why_not_ready(self) -> str:
        return "" if self._loop.is_ready else "the cluster has not been read yet"


async def _serve(settings: ControllerSettings) -> None:
    async with Api(await configuration(settings.kubeconfig)) as api:
        await _Replica(api, settings).serve()


async def _nothing_wrong() -> str:
    """A process that answers works: what fails in it ends it."""
    return ""


async def _at_last(call: Callable[[], Awaitable[None]]) -> None:
    """Calls until the API server answers as it should."""
    while True:
        try:
            return await call()
        except ApiError as problem:
            log.warning("the control plane cannot begin yet", extra={"problem": str(problem)})
            await asyncio.sleep(_RETRY)


def _is_theirs(gateway: str, identity: Identity) -> bool:
    """Whether a Gateway, `namespace/name`, is served by the pods of an identity."""
    namespace, _, name = gateway.partition("/")
    key = Key(Gateway.group, Gateway.__name__, namespace, name)
    asking = (identity.namespace, identity.gateway, identity.service_account)
    return asking == (namespace, name, name_of(key))
