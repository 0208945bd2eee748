"""Rules for every deployed template, whatever the settings and the fleet: read from the templates alone, so
that a mistake in the stacks' code cannot hide itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from infra.assembly import Assembly
from infra.audit import access, encryption, exposure, limits

RULES: tuple[Callable[[Assembly], Iterable[str]], ...] = (
    limits.nothing_is_looked_up,
    limits.templates_fit,
    limits.no_custom_resources,
    exposure.no_ingress_from_the_internet,
    exposure.balancers_are_internal,
    exposure.servers_have_no_public_address,
    exposure.every_route_is_authorized,
    exposure.management_is_refused,
    access.every_function_has_its_own_role,
    access.wildcards_have_reasons,
    access.no_service_wide_actions,
    access.the_registry_is_written_by_partition,
    access.keys_are_used_through_services,
    access.suppressions_have_reasons,
    access.no_secret_is_written,
    access.every_alarm_calls_someone,
    encryption.everything_stored_is_encrypted,
    encryption.only_tls,
    encryption.callers_use_tls,
    encryption.buckets_are_private,
)
"""Every rule; each yields what breaks it."""


def audit(assembly: Assembly) -> list[str]:
    """Return every violation of a rule, in words, with its resource."""
    return [f"{rule.__name__.replace('_', ' ')}: {problem}" for rule in RULES for problem in rule(assembly)]
