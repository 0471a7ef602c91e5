"""Makes the views of rules, or remembers them."""

from dataclasses import dataclass
from functools import partial

from controller.ir.types import Priority, Rule, Server
from controller.render.backend_views import BackendViews, Bearing
from controller.render.cors import cors_of
from controller.render.headers import answer_headers
from controller.render.memory import Memory
from controller.render.redirects import redirect_of, redirect_port
from controller.render.sessions import is_kept, session_view
from controller.render.splitting import split_view
from controller.render.views import RuleView


@dataclass(frozen=True)
class RuleViews:
    """Makes them for one configuration."""

    backends: BackendViews
    memory: Memory

    def known_rule(self, rule: Rule, server: Server, bearing: Bearing) -> RuleView:
        """The view that was made of the same rule before, where nothing else that it depends on differs."""
        key = (rule.id, server.port, server.is_tls, server.client_certificate, bearing)
        return self.memory.view(key, rule, partial(self.rule, rule, server, bearing))

    def rule(self, rule: Rule, server: Server, bearing: Bearing) -> RuleView:
        location = f"@{rule.id}"
        redirect = redirect_of(rule.filters)
        drawn = [index for index, backend in enumerate(rule.backends) if backend.weight > 0]
        stays = [index for index, backend in enumerate(rule.backends) if rule.session and is_kept(backend)]
        used = sorted({*drawn, *stays}) if drawn else []
        is_divided = len(used) > 1 and redirect is None
        places = {index: f"{location}/{index}" if is_divided else location for index in used}
        backends = tuple(self.backends.backend(rule, index, place, server, bearing) for index, place in places.items())
        is_split = is_divided and len(drawn) > 1
        split = split_view(rule, [places[index] for index in drawn]) if is_split else None
        session = None
        if is_divided and rule.session is not None:
            default = split.variable if split else places[drawn[0]]
            session = session_view(rule, places=places, default=default, is_secure=server.is_tls)
        return RuleView(
            rule=rule,
            location=location,
            # A session is looked for in the location of the rule, which says by what.
            is_named=bearing.is_named and (session is not None or split is None),
            target=split.variable if split and not session else location,
            redirect=redirect,
            redirect_port=redirect_port(redirect, server) if redirect else None,
            redirect_headers=answer_headers(rule.filters).added if redirect else (),
            cors=cors_of(rule.filters) if redirect else None,
            backends=backends,
            split=split,
            session=session,
            priorities=_priorities(rule.priority),
        )


def _priorities(priority: Priority) -> tuple[tuple[str, int], ...]:
    named = (
        ("infergate_priority", priority.fixed),
        ("infergate_priority_cap", priority.cap),
        ("infergate_priority_default", priority.default),
    )
    return tuple((name, number) for name, number in named if number is not None)
