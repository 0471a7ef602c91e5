"""The certificate authority in a Secret of the control plane's namespace, which all its replicas share.

The replica that creates the Secret is the first; every change states the version it is made from, so that the API
server takes one of two and the other replica goes on with what was taken. The Secret is nobody's: it stays when the
chart is removed, and data planes that are left behind trust the control plane that is installed next.
"""

import base64
import binascii
from dataclasses import dataclass
from typing import Final

import msgspec

from controller.dataplane.manifests import Json
from controller.dataplane.pki import Authority
from controller.dataplane.provision import Api
from controller.errors import ApiConflict, ApiError, ApiMissing

_KEY: Final = "authority.json"
_TRUSTED: Final = "ca.crt"
"""For people, and for clients that want to check the control plane; read by nobody here."""
_LABELS: Final = {
    "app.kubernetes.io/name": "infergate",
    "app.kubernetes.io/component": "control-plane",
    "app.kubernetes.io/managed-by": "infergate",
}
_TRIES: Final = 4
"""Changes of the Secret by others, one after the other, that are waited out. Replicas write it a few times a year."""


@dataclass(frozen=True)
class SecretStore:
    """An AuthorityStore over the API server. The namespace is the control plane's own."""

    api: Api
    namespace: str
    name: str
    """Of the Secret."""

    async def load(self) -> Authority | None:
        """Raises ApiError when the Secret cannot be read, or holds something else."""
        kept = await self._get()
        return None if kept is None else self._authority(kept)

    async def replace(self, before: Authority | None, after: Authority) -> Authority:
        """Raises ApiError when the Secret cannot be written, or holds something else."""
        for _ in range(_TRIES):
            kept = await self._get()
            if kept is not None:
                found = self._authority(kept)
                if found != before:
                    return found
            try:
                await self._put(after, kept)
            except (ApiConflict, ApiMissing):  # Another was first, or somebody deleted it.
                continue
            return after
        raise ApiError(f"Secret {self.namespace}/{self.name} was changed {_TRIES} times while it was written")

    async def _get(self) -> Json | None:
        try:
            return await self.api.request("GET", f"{self._collection}/{self.name}")
        except ApiMissing:
            return None

    async def _put(self, authority: Authority, kept: Json | None) -> None:
        wanted = self._secret(authority)
        if kept is None:
            await self.api.request("POST", self._collection, wanted)
            return
        metadata = {**kept["metadata"], "labels": {**(kept["metadata"].get("labels") or {}), **_LABELS}}
        await self.api.request("PUT", f"{self._collection}/{self.name}", {**wanted, "metadata": metadata})

    def _authority(self, secret: Json) -> Authority:
        try:
            text = base64.b64decode((secret.get("data") or {})[_KEY], validate=True)
            return msgspec.json.decode(text, type=Authority)
        except (KeyError, TypeError, binascii.Error, msgspec.DecodeError) as problem:
            where = f"Secret {self.namespace}/{self.name}"
            raise ApiError(
                f"{where}: data[{_KEY!r}] is no certificate authority; without the Secret a new one is made"
            ) from problem

    def _secret(self, authority: Authority) -> Json:
        content = {_KEY: msgspec.json.encode(authority), _TRUSTED: authority.trusted}
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": self.name, "namespace": self.namespace, "labels": dict(_LABELS)},
            "type": "Opaque",
            "data": {name: base64.b64encode(value).decode() for name, value in content.items()},
        }

    @property
    def _collection(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/secrets"
