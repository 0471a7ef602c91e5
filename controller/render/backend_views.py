"""Makes the views of backends, and of what their requests are copied to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from controller.headers import DIALED_HEADER
from controller.ir.filters import Filter, Mirror, Rewrite
from controller.ir.policies import Retry
from controller.ir.types import NO_PRIORITY, Rule, Server, Target, ToPool, ToStatus, ToUpstream
from controller.render.copies import copies_upstream
from controller.render.cors import cors_of
from controller.render.dialed import stem_of
from controller.render.headers import Header, answer_headers, request_headers
from controller.render.hidden import BASE, Names, beside
from controller.render.quoting import expression, inside
from controller.render.redirects import redirect_of, redirect_port
from controller.render.sessions import backend_settings, with_session
from controller.render.splitting import sample_view
from controller.render.targets import Targets, drawn_pools
from controller.render.views import BackendView, MirrorView, RetryView

_SERVE: Final = "@infergate_serve"


@dataclass(frozen=True)
class Bearing:
    """What of its server bears on a rule."""

    is_named: bool
    """Whether something jumps to it."""
    is_read: bool
    """Whether requests come by way of a place that reads their model."""
    hidden: Names
    """Headers of backends that the server hides."""


@dataclass(frozen=True)
class BackendViews:
    """Makes them for one configuration."""

    targets: Targets

    def backend(self, rule: Rule, index: int, location: str, server: Server, bearing: Bearing) -> BackendView:
        backend = rule.backends[index]
        filters = (*rule.filters, *backend.filters)
        rewrites = _rewrites(filters)
        target = backend.target
        speaks_http2 = (isinstance(target, ToUpstream) and target.upstream in self.targets.http2) or (
            isinstance(target, ToPool) and target.pool in self.targets.http2_pools
        )
        base = request_headers(is_call=rule.takes_calls)
        headers = request_headers(filters, upgrades=not speaks_http2, is_call=rule.takes_calls)
        answer = with_session(answer_headers(filters), rule)
        tls = self.targets.tls_of(target)
        endpoint_variable = self.targets.endpoint_variable_of(target, server)
        is_rewriting = isinstance(target, ToPool) and target.pool in self.targets.rewriting
        pools = _other_pools(rule) if isinstance(target, ToPool) else ""
        is_plain = headers == request_headers() and answer == answer_headers()
        is_plain = is_plain and not (rewrites or rule.timeouts or endpoint_variable)
        # A reference that does not resolve is 500 still; a Service without endpoints is not asked for any.
        is_broken = isinstance(target, ToStatus) and target.status == 500
        redirect = None if is_broken else redirect_of(backend.filters)
        return BackendView(
            location=location,
            serve_location=_SERVE if is_plain else f"{location}/serve",
            has_own_serve_location=not is_plain and redirect is None,
            target=target,
            upstream=self.targets.upstream_of(target, server),
            speaks_http2=speaks_http2,
            module=_module(rule),
            fails_open=isinstance(target, ToPool) and target.pool in self.targets.fail_open,
            headers=None if headers == base else headers,
            relay_headers=self.relay_headers(target, filters, server, in_session=rule.session is not None),
            # Servers have lists for `proxy` alone.
            answer=beside(answer, BASE if rule.takes_calls else bearing.hidden),
            hostname=next((item.hostname for item in rewrites if item.hostname), None),
            path=next((item.path for item in rewrites if item.path), None),
            timeouts=rule.timeouts,
            mirrors=tuple(
                self.mirror(rule, mirror, server, filters=filters, location=f"mirror:{location[1:]}/{number}")
                for number, mirror in enumerate(item for item in filters if isinstance(item, Mirror))
            ),
            cors=cors_of(filters),
            retry=_retry_view(rule, rule.retry, location) if rule.retry and isinstance(target, ToUpstream) else None,
            tls=tls,
            endpoint_variable=endpoint_variable,
            rewritten_location=f"{location}/rewritten" if is_rewriting and redirect is None else "",
            rewritten_headers=request_headers(filters, encodings=False) if is_rewriting else (),
            pools=pools,
            tells_more=bearing.is_read or bool(pools or rule.session) or rule.priority != NO_PRIORITY,
            redirect=redirect,
            redirect_port=redirect_port(redirect, server) if redirect else None,
            redirect_headers=answer_headers(filters).added if redirect else (),
            session=backend_settings(rule, index, is_secure=server.is_tls),
        )

    def relay_headers(
        self, target: Target, filters: tuple[Filter, ...], server: Server, *, in_session: bool
    ) -> tuple[Header, ...] | None:
        """None for what does not go to the relay."""
        if not isinstance(target, ToPool) or target.pool not in self.targets.relayed:
            return None
        tls = self.targets.dialed_pools.get(target.pool)
        http2 = target.pool in self.targets.http2_pools
        stem = stem_of(tls, speaks_http2=http2, shown=server.client_certificate) if tls else ""
        headers = request_headers(filters, to_relay=True, in_session=in_session)
        dialed = Header(DIALED_HEADER, expression(stem))
        return tuple(dialed if header.name == DIALED_HEADER else header for header in headers)

    def mirror(
        self, rule: Rule, mirror: Mirror, server: Server, *, filters: tuple[Filter, ...], location: str
    ) -> MirrorView:
        rewrites = _rewrites(filters)
        return MirrorView(
            location=location,
            upstream=(
                copies_upstream(server.client_certificate)
                if mirror.pool
                else self.targets.upstream_of(ToUpstream(mirror.upstream), server)
            ),
            speaks_http2=mirror.upstream in self.targets.http2,
            module=_module(rule),
            sample=sample_view(rule, mirror, location=location),
            headers=request_headers(
                filters, upgrades=False, is_call=rule.takes_calls, copied_to=inside(mirror.pool) if mirror.pool else ""
            ),
            answer=None,
            hostname=next((item.hostname for item in rewrites if item.hostname), None),
            path=next((item.path for item in rewrites if item.path), None),
            tls=self.targets.tls.get(mirror.upstream),
        )


def _retry_view(rule: Rule, retry: Retry, location: str) -> RetryView:
    return RetryView(
        locations=tuple(f"{location}/retry{number + 1}" for number in range(retry.attempts)),
        caught=tuple(sorted({502, 504, *retry.codes})),
        has_codes=bool(retry.codes),
        backoff_ms=round(retry.backoff * 1000),
        waits=bool(retry.backoff or (rule.timeouts and rule.timeouts.request)),
    )


def _other_pools(rule: Rule) -> str:
    pools = drawn_pools([rule])
    return ",".join(pools) if len(pools) > 1 else ""


def _module(rule: Rule) -> str:
    return "grpc" if rule.takes_calls else "proxy"


def _rewrites(filters: Sequence[Filter]) -> list[Rewrite]:
    """The last one first: what a backend changes holds over what its rule changes."""
    return [item for item in reversed(filters) if isinstance(item, Rewrite)]
