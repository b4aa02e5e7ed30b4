"""Outbound webhooks for Flask apps: declared in YAML, written in your own transaction, delivered by RQ."""

from .errors import (
    AddressRefusedError,
    BulkStatementError,
    CatalogError,
    ConfigurationError,
    EmitError,
    ErrorText,
    ExclusivityError,
    OwnerMissingError,
    PayloadError,
    PayloadTooLargeError,
    PrincipalError,
    SecretError,
    SubscriptionChangedError,
    SubscriptionError,
    SubscriptionMissingError,
    ThrottledError,
    UnknownEventError,
    VerificationError,
    WebhooksError,
)
from .extension import Webhooks
from .manager import Subscription
from .principal import ALL_OWNERS, Principal

__all__ = [
    "ALL_OWNERS",
    "AddressRefusedError",
    "BulkStatementError",
    "CatalogError",
    "ConfigurationError",
    "EmitError",
    "ErrorText",
    "ExclusivityError",
    "OwnerMissingError",
    "PayloadError",
    "PayloadTooLargeError",
    "Principal",
    "PrincipalError",
    "SecretError",
    "Subscription",
    "SubscriptionChangedError",
    "SubscriptionError",
    "SubscriptionMissingError",
    "ThrottledError",
    "UnknownEventError",
    "VerificationError",
    "Webhooks",
    "WebhooksError",
]
