"""The instances of each data plane: who is there, and what they said of the newest version."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from controller.dataplane.base import Report
from controller.dataplane.tokens import Identity
from controller.wire import REPORT_EVERY, Statement, refused_of

FORGOTTEN_AFTER: Final = 3 * REPORT_EVERY + 5.0
"""Seconds without a word after which an instance counts no more. Three reports may be lost."""
MOST: Final = 1000
"""Instances of one Gateway that are remembered; the one that was heard least lately goes first."""


@dataclass(frozen=True)
class InstanceReport:
    """What one pod of a data plane said last."""

    pod: str
    uid: str
    """Of the pod."""
    report: Report
    """On the newest version that the instance was given."""
    live: str
    """The version that its nginx serves; empty when it serves none."""
    etag: str
    """Of the pools that its picker was given last."""
    problem: str = ""
    """What keeps the version from being served if nginx did not refuse it."""


@dataclass
class _Heard:
    said: InstanceReport | None
    at: float


@dataclass
class Instances:
    """Who was heard of late. `on_change` is told the name of a Gateway whose instances or reports are others."""

    clock: Callable[[], float]
    on_change: Callable[[str], None] = lambda gateway: None
    _by_gateway: dict[str, dict[str, _Heard]] = field(default_factory=dict, init=False)
    """By the uid of the pod."""

    def heard(self, gateway: str, identity: Identity) -> None:
        """An instance asked for something."""
        if self._hear(gateway, identity):
            self.on_change(gateway)

    def _hear(self, gateway: str, identity: Identity) -> bool:
        """Whether the instance was not known."""
        known = self._by_gateway.setdefault(gateway, {})
        before = known.pop(identity.uid, None)
        known[identity.uid] = _Heard(before.said if before else None, self.clock())
        if len(known) > MOST:
            del known[next(iter(known))]
        return before is None

    def said(self, gateway: str, identity: Identity, statement: Statement) -> None:
        """An instance told what it serves, or that it leaves."""
        before = self._by_gateway.get(gateway, {}).get(identity.uid)
        if statement.is_leaving:
            self._forget(gateway, identity.uid)
            return
        report = _report(gateway, identity, statement)
        self._hear(gateway, identity)
        self._by_gateway[gateway][identity.uid].said = report
        if before is None or before.said != report:
            self.on_change(gateway)

    def reports(self, gateway: str) -> tuple[InstanceReport, ...]:
        """What the instances of a Gateway said last, sorted by pod."""
        known = self._by_gateway.get(gateway, {}).values()
        return tuple(
            sorted((each.said for each in known if each.said is not None), key=lambda said: (said.pod, said.uid))
        )

    def count(self, gateway: str) -> int:
        """How many instances of a Gateway were heard of late, whether they said something or not."""
        return len(self._by_gateway.get(gateway, {}))

    def forget_silent(self) -> None:
        """Forget instances that were not heard of for `FORGOTTEN_AFTER`."""
        oldest = self.clock() - FORGOTTEN_AFTER
        for gateway, known in tuple(self._by_gateway.items()):
            for uid in [uid for uid, each in known.items() if each.at < oldest]:
                self._forget(gateway, uid)

    def withdraw(self, gateway: str) -> None:
        """Forget all instances of a Gateway."""
        self._by_gateway.pop(gateway, None)

    def _forget(self, gateway: str, uid: str) -> None:
        known = self._by_gateway.get(gateway, {})
        gone = known.pop(uid, None)
        if not known:
            self._by_gateway.pop(gateway, None)
        if gone is not None:
            self.on_change(gateway)


def _report(gateway: str, identity: Identity, statement: Statement) -> InstanceReport:
    refusal = refused_of(statement.refusal)
    return InstanceReport(
        pod=identity.pod,
        uid=identity.uid,
        report=Report(
            gateway=gateway,
            version=statement.version,
            serving=statement.version != "" and statement.live == statement.version,
            refusal=refusal,
            seconds=statement.seconds,
        ),
        live=statement.live,
        etag=statement.etag,
        problem=statement.problem,
    )
