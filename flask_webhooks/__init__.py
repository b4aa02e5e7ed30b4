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
    SubscriptionError,
    UnknownEventError,
    VerificationError,
    WebhooksError,
)
from .extension import Webhooks
from .state import Principal

__all__ = [
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
    "SubscriptionError",
    "UnknownEventError",
    "VerificationError",
    "Webhooks",
    "WebhooksError",
]
