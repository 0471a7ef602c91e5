"""What this gateway supports of the Gateway API, in one table: it is written to the status of GatewayClasses.

The conformance suite runs the tests of what is named here. A test derives the status of a route that uses each feature,
and finds the feature here exactly when nothing is said against it.

Source: Gateway API v1.6.1, pkg/features.
"""

from collections.abc import Collection
from typing import Final

FEATURES: Final = (
    "BackendTLSPolicy",
    "BackendTLSPolicySANValidation",
    "GRPCRoute",
    "GRPCRouteNamedRouteRule",
    "Gateway",
    "GatewayAddressEmpty",
    "GatewayBackendClientCertificate",
    "GatewayFrontendClientCertificateValidation",
    "GatewayFrontendClientCertificateValidationInsecureFallback",
    "GatewayHTTPListenerIsolation",
    "GatewayHTTPSListenerDetectMisdirectedRequests",
    "GatewayPort8080",
    "GatewayStaticAddresses",
    "HTTPRoute",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteBackendProtocolH2C",
    "HTTPRouteBackendProtocolWebSocket",
    "HTTPRouteBackendRequestHeaderModification",
    "HTTPRouteBackendTimeout",
    "HTTPRouteCORS",
    "HTTPRouteDestinationPortMatching",
    "HTTPRouteHostRewrite",
    "HTTPRouteMethodMatching",
    "HTTPRouteNamedRouteRule",
    "HTTPRouteParentRefPort",
    "HTTPRoutePathRedirect",
    "HTTPRoutePathRewrite",
    "HTTPRoutePortRedirect",
    "HTTPRouteQueryParamMatching",
    "HTTPRouteRequestMirror",
    "HTTPRouteRequestMultipleMirrors",
    "HTTPRouteRequestPercentageMirror",
    "HTTPRouteRequestTimeout",
    "HTTPRouteResponseHeaderModification",
    "HTTPRouteRetry",
    "HTTPRouteRetryBackendTimeout",
    "HTTPRouteRetryConnectionError",
    "HTTPRouteSchemeRedirect",
    "ListenerSet",
    "ReferenceGrant",
    "TCPRoute",
    "TLSRoute",
    "TLSRouteModeMixed",
    "TLSRouteModeTerminate",
    "UDPRoute",
)
"""Sorted, as the specification demands."""

IN_CLUSTER: Final = tuple(sorted((*FEATURES, "GatewayInfrastructurePropagation")))
"""Where each Gateway has a data plane of its own."""

FIELDS: Final = dict.fromkeys(
    ("HTTPRouteRetry", "HTTPRouteRetryBackendTimeout", "HTTPRouteRetryConnectionError"),
    ("HTTPRoute", "spec", "rules", "retry"),
)
"""Features that need a field which is in the experimental channel alone: its kind, and the names on the way to it."""


def features_without(missing: Collection[tuple[str, ...]]) -> tuple[str, ...]:
    """Those of a cluster whose definitions lack some fields."""
    return tuple(name for name in IN_CLUSTER if FIELDS.get(name) not in missing)
