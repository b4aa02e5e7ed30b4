"""The error tree, ordered by the party that has to correct the mistake.

A receiver's failure is *data* (an attempt row with a failure class), never an exception::

    WebhooksError
    ├── ConfigurationError           the developer's: `init_app` or `flask webhooks check` refuses to start
    │   ├── CatalogError             every mistake of the YAML catalogue at once, in `.problems`
    │   └── PrincipalError           a principal loader that returns neither a Principal nor None
    ├── EmitError                    the calling code's: raised inside the host's own transaction
    │   ├── UnknownEventError
    │   ├── OwnerMissingError
    │   ├── PayloadError             data that JSON cannot hold, or that a schema cannot dump
    │   ├── PayloadTooLargeError
    │   └── BulkStatementError       a bulk statement that `WEBHOOKS_BULK` does not allow
    ├── SubscriptionError            the customer's: a subscription that cannot be accepted, in `.fields`
    │   ├── AddressRefusedError      a destination that we never talk to
    │   ├── ExclusivityError         channels that one subscriber may not hold together
    │   ├── UnfitTextError           characters that the app's database cannot store or compare
    │   ├── OtherEnvironmentError    it is of an environment that this app does not send for
    │   ├── SubscriptionMissingError it does not exist, or is another owner's
    │   └── SubscriptionChangedError another request has changed it since it was read
    ├── ThrottledError               the customer's: a limit of one owner, at once or per period, is exceeded
    ├── SecretError                  a signing secret or encryption key that is malformed or does not fit
    ├── VerificationError            raised by `receiving.verify`: the request has no valid signature
    └── QueueError                   Redis cannot be reached: logged, and workers find the work in the database

A message says what happened, with the values, and then what to do. Each class has a `code` for programs. A message that
a customer may read is an `ErrorText`: it has a code of its own and its values, so that a door can translate it.

===========  =====================================================================
`sentences`  every sentence for customers by its code, with what to do about it
`text`       `ErrorText`: one of these sentences, with its values
===========  =====================================================================
"""

from __future__ import annotations

import typing as t

from .sentences import N_, SENTENCES, Sentence
from .text import ErrorText

__all__ = [
    "N_",
    "SENTENCES",
    "AddressRefusedError",
    "BulkStatementError",
    "CatalogError",
    "ConfigurationError",
    "EmitError",
    "ErrorText",
    "ExclusivityError",
    "OtherEnvironmentError",
    "OwnerMissingError",
    "PayloadError",
    "PayloadTooLargeError",
    "PrincipalError",
    "Problem",
    "QueueError",
    "SecretError",
    "Sentence",
    "SubscriptionChangedError",
    "SubscriptionError",
    "SubscriptionMissingError",
    "ThrottledError",
    "UnfitTextError",
    "UnknownEventError",
    "VerificationError",
    "WebhooksError",
]


class WebhooksError(Exception):
    """Base of all errors of Flask-Webhooks.

    :param params: the values in the message, for programs. An `ErrorText` as the first argument brings its own.
    """

    code: t.ClassVar[str] = "error"
    """Names the error for programs; also the `code` of the API's problem details for this class."""

    params: dict[str, str | float]
    """The values in its message, by name."""

    def __init__(self, *args: object, **params: str | float) -> None:
        super().__init__(*args)
        text = args[0] if args else None
        self.params = {**(text.params if isinstance(text, ErrorText) else {}), **params}

    def __reduce__(self) -> tuple[t.Any, ...]:
        """Unpickle without calling `__init__`, whose arguments differ from `args` in some classes."""
        return _unpickled, (type(self), self.args, vars(self))


def _unpickled(kind: type[WebhooksError], args: tuple[object, ...], state: dict[str, t.Any]) -> WebhooksError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class ConfigurationError(WebhooksError):
    """The app is configured wrongly, and must not start."""

    code = "configuration"


class Problem(t.NamedTuple):
    """One mistake in a catalogue."""

    file: str
    """Path of the file as configured."""
    line: int
    """Line in that file, from 1."""
    path: str
    """Path inside the document: `channels.invoices.events.paid.when`."""
    message: str
    """What is wrong."""
    remedy: str
    """What to write instead."""

    def __str__(self) -> str:
        said = f"{self.file}:{self.line}: {self.path}: {self.message} {self.remedy}".rstrip()
        return said.replace("\n", "\\n")  # a name in YAML may contain a line break, and a problem is one line


class CatalogError(ConfigurationError):
    """The catalogue has mistakes; `problems` lists all of them."""

    code = "catalog"

    def __init__(self, problems: t.Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        head = f"The webhook catalogue has {count} mistake{'' if count == 1 else 's'}:"
        super().__init__("\n".join([head, *(f"  {problem}" for problem in self.problems)]), count=count)


class PrincipalError(ConfigurationError):
    """A principal loader returned neither a valid `Principal` nor None; the request is refused."""

    code = "principal"


class EmitError(WebhooksError):
    """An event could not be recorded; the surrounding transaction has not been committed."""

    code = "emit"


class UnknownEventError(EmitError):
    """The event is not in the catalogue."""

    code = "unknown_event"


class OwnerMissingError(EmitError):
    """The data has no owner, so no subscription can match it."""

    code = "owner_missing"


class PayloadError(EmitError):
    """The data cannot be written as JSON."""

    code = "payload"


class PayloadTooLargeError(EmitError):
    """The data is larger than `WEBHOOKS_PAYLOAD_LIMIT`."""

    code = "payload_too_large"


class BulkStatementError(EmitError):
    """`WEBHOOKS_BULK` does not allow a bulk statement on a catalogued model."""

    code = "bulk_statement"


class SubscriptionError(WebhooksError):
    """A subscription cannot be accepted.

    :param fields: the messages about each field, by its name, as the API returns them. Each is an `ErrorText`, whose
        `code` names the mistake, unless the host's own code made it.
    """

    code = "invalid"

    def __init__(self, message: str, fields: t.Mapping[str, t.Sequence[str]] | None = None) -> None:
        super().__init__(message)
        self.fields: dict[str, list[str]] = {name: list(texts) for name, texts in (fields or {}).items()}


class AddressRefusedError(SubscriptionError):
    """The destination is one that we never talk to.

    The owner sees `str(error)`, which reveals nothing about our network; the operator's log gets the name, its address
    (None: the name or the port alone is refused) and the rule.
    """

    def __init__(self, message: str, *, host: str, address: str | None, rule: str) -> None:
        super().__init__(message, {"url": [message]})
        self.host, self.address, self.rule = host, address, rule

    @property
    def detail(self) -> str:
        """One line for the operator."""
        return (
            f"{self.host}: {self.rule}"
            if self.address is None
            else f"{self.host} is {self.address}: {self.rule}"
        )


class ExclusivityError(SubscriptionError):
    """Channels that one subscriber may not hold together."""

    code = "exclusive"


class OtherEnvironmentError(SubscriptionError):
    """The subscription is of an environment that this app does not send for."""

    code = "conflict"

    def __init__(self, environment: str) -> None:
        super().__init__(ErrorText("other_environment", environment=environment))


class UnfitTextError(SubscriptionError):
    """A text has characters that the app's database cannot store or compare, such as emoji in utf8mb3."""

    def __init__(self) -> None:
        super().__init__(ErrorText("unfit_text"))


class SubscriptionMissingError(SubscriptionError):
    """There is no such subscription, or it is another owner's; the error does not say which."""

    code = "not_found"


class SubscriptionChangedError(SubscriptionError):
    """Another request has changed the subscription since it was read."""

    code = "changed"


class ThrottledError(WebhooksError):
    """An owner has exceeded a limit on requests at once or per period.

    :param wait: seconds after which the owner may try again.
    """

    code = "too_many_requests"

    def __init__(self, message: str, wait: float) -> None:
        super().__init__(message, wait=wait)
        self.wait = wait


class SecretError(WebhooksError):
    """A signing secret or an encryption key is malformed or does not fit."""

    code = "unreadable"


class VerificationError(WebhooksError):
    """A received request does not carry a valid signature of the sender."""

    code = "unverified"


class QueueError(WebhooksError):
    """Redis cannot be reached; due deliveries stay in the database."""

    code = "queue"
