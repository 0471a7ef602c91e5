"""What a data plane's nginx refused, for as long as the resources that caused it stay as they are."""

import logging
import re
from dataclasses import dataclass, field
from typing import Final

from controller.bundle import Bundle
from controller.errors import NginxRefused
from controller.ir.streams import Opening
from controller.render.files import opening_of, trace
from controller.resources.meta import Key
from controller.resources.snapshot import Snapshot
from controller.topology.refusals import Refusals

log = logging.getLogger(__name__)

_BIND: Final = re.compile(r"\bbind\(\) to \S+:(\d+) failed")


@dataclass
class Refused:
    """Remembers culprits, each as the object that it was then and with nginx's own words."""

    ports: dict[Opening, str] = field(default_factory=dict)
    """Ports that could not be opened, and why."""
    _routes: dict[Key, tuple[object, str]] = field(default_factory=dict)
    """Also pools and Services that a fragment names."""
    _listeners: dict[tuple[Key, str], tuple[object, str]] = field(default_factory=dict)

    def learn(self, refusal: NginxRefused, *, bundle: Bundle, snapshot: Snapshot) -> bool:
        """Takes a refusal of a bundle that was made of a snapshot. False when nothing more can be taken out for it."""
        port = _BIND.search(refusal.message)
        if port:
            log.error("port cannot be opened", extra={"port": int(port[1]), "problem": refusal.message})
            # nginx does not say of which transport the port is.
            opened = {opening for file in bundle.files if (opening := opening_of(file.path))}
            news = [item for item in opened if item.port == int(port[1]) and item not in self.ports]
            self.ports |= dict.fromkeys(news, refusal.message)
            return bool(news)
        if refusal.file is None or refusal.line is None:
            return False
        learned = False
        for subject in trace(bundle, path=refusal.file, line=refusal.line):
            found = next((item for item in snapshot.resources if item.key == subject.key), None)
            if found is None:
                continue
            log.error("nginx refused a resource", extra={"resource": str(subject.key), "problem": refusal.message})
            if subject.listener is not None:
                learned |= (subject.key, subject.listener) not in self._listeners
                self._listeners[subject.key, subject.listener] = (found, refusal.message)
            else:
                learned |= subject.key not in self._routes
                self._routes[subject.key] = (found, refusal.message)
        return learned

    def forget_changed(self, snapshot: Snapshot) -> None:
        """Gives what was refused another chance once the resource is another one."""
        present = {item.key: item for item in snapshot.resources} if self._routes or self._listeners else {}
        self._routes = {key: value for key, value in self._routes.items() if present.get(key) is value[0]}
        self._listeners = {
            where: value for where, value in self._listeners.items() if present.get(where[0]) is value[0]
        }

    def refusals(self) -> Refusals:
        """What is known at this moment."""
        return Refusals(
            routes={key: message for key, (_, message) in self._routes.items()},
            listeners={where: message for where, (_, message) in self._listeners.items()},
            ports=dict(self.ports),
        )
