"""The authority of the control plane's certificates, in a Secret of a real API server that replicas share."""

import asyncio
from datetime import UTC, datetime, timedelta

from cryptography import x509

from controller.dataplane.certificates import Certificates
from controller.dataplane.pki import CA_LIFETIME, Pair
from controller.dataplane.secret_store import SecretStore
from controller.kube import Api

_REPLICAS = 5


async def test_replicas_that_begin_together_agree(api: Api, namespace: str) -> None:
    used: list[Pair] = []
    replicas = [_replica(api, namespace, used) for _ in range(_REPLICAS)]

    await asyncio.gather(*(replica.look() for replica in replicas))

    kept = await SecretStore(api, namespace, "infergate-ca").load()
    assert kept is not None
    assert len(used) == _REPLICAS
    assert {_issuer(pair) for pair in used} == {_subject(kept.signing)}


async def test_replicas_announce_one_successor(api: Api, namespace: str) -> None:
    now = [datetime.now(UTC)]
    used: list[Pair] = []
    replicas = [_replica(api, namespace, used, now) for _ in range(_REPLICAS)]
    await replicas[0].look()
    first = await SecretStore(api, namespace, "infergate-ca").load()

    now[0] += 0.7 * CA_LIFETIME
    await asyncio.gather(*(replica.look() for replica in replicas))
    announced = await SecretStore(api, namespace, "infergate-ca").load()
    now[0] += timedelta(days=2)
    used.clear()
    await asyncio.gather(*(replica.look() for replica in replicas))
    changed = await SecretStore(api, namespace, "infergate-ca").load()

    assert first is not None
    assert announced is not None
    assert announced.next is not None
    assert changed is not None
    assert announced.signing == first.signing
    assert changed.signing == announced.next
    assert changed.retired == (first.signing.certificate,)
    assert {_issuer(pair) for pair in used} == {_subject(changed.signing)}


def _replica(api: Api, namespace: str, used: list[Pair], now: list[datetime] | None = None) -> Certificates:
    clock = now or [datetime.now(UTC)]
    store = SecretStore(api, namespace, "infergate-ca")
    return Certificates(store, ["infergate.infergate-system.svc"], used.append, lambda: clock[0])


def _issuer(pair: Pair) -> bytes | None:
    extensions = x509.load_pem_x509_certificate(pair.certificate).extensions
    return extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier


def _subject(pair: Pair) -> bytes:
    extensions = x509.load_pem_x509_certificate(pair.certificate).extensions
    return extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
