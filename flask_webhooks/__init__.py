"""Outbound webhooks for Flask apps: declared in YAML, written in your own transaction, delivered by RQ."""

from .errors import (
    AddressRefusedError,
    BulkStatementError,
    CatalogError,
    ConfigurationError,
    EmitError,
    ExclusivityError,
    OwnerMissingError,
    PayloadError,
    PayloadTooLargeError,
    PrincipalError,
    SubscriptionError,
    UnknownEventError,
    VerificationError,
    WebhooksError,
)
from .extension import Webhooks
from .principal import ALL_OWNERS, Principal

__all__ = [
    "ALL_OWNERS",
    "AddressRefusedError",
    "BulkStatementError",
    "CatalogError",
    "ConfigurationError",
    "EmitError",
    "ExclusivityError",
    "OwnerMissingError",
    "PayloadError",
    "PayloadTooLargeError",
    "Principal",
    "PrincipalError",
    "SubscriptionError",
    "UnknownEventError",
    "VerificationError",
    "Webhooks",
    "WebhooksError",
]
