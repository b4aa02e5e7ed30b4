"""Every `WEBHOOKS_*` key: its default, its unit and its check, in one frozen `Settings`.

`Settings.read` is called once, by `Webhooks.init_app`; what the app changes in its configuration afterwards has no
effect. A wrong value stops the app, with the key, the value and what is accepted. A key that is not ours may be the
host's, such as the secret of webhooks that it receives: it is warned about only where it looks like a misspelling.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import typing as t
from dataclasses import dataclass, field
from datetime import timedelta

from ..catalog import suggestion
from ..errors import ConfigurationError
from ..health import Breaker
from ..models import DEFAULT_PREFIX, LONGEST_PREFIX
from ..retry import schedule
from . import values

PREFIX = "WEBHOOKS_"

_COUNT = "a whole number from 1"
_FLAG = "True or False"
_PLAIN_ADDRESS = re.compile(r"[a-z0-9.-]+:[0-9]{1,5}")
"""What has no room for a key or a password: `localhost:6379`, where the scheme was forgotten."""


def _key(default: t.Any, check: t.Callable[[t.Any], t.Any], accepted: str, *, secret: bool = False) -> t.Any:
    """:param secret: the value holds keys or passwords, and is shown neither in a message nor in a `repr`."""
    metadata = {"check": check, "accepted": accepted, "secret": secret}
    return field(default=default, repr=not secret, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The configuration of one app. Field `timeout` is the key `WEBHOOKS_TIMEOUT`, and so on."""

    catalog: tuple[str, ...] = _key(
        ("webhooks.yaml",),
        values.catalog,
        "a path relative to the app's root, `package:resource`, a registered catalogue's name, or a list of these",
    )
    """Where the channels are declared; several sources are merged."""
    environment: values.Environment = _key(
        "staging",
        values.environment,
        '"staging", "production" or a callable (event_type, data, owner) -> str',
    )
    """The tag of every message; only subscriptions of that environment get it."""
    send_environments: frozenset[str] | None = _key(
        None, values.environments, 'None, "staging", "production" or a list of these'
    )
    """Whose subscriptions workers send to; None: those of `environment`, or all where that is a callable."""
    schema: str | None = _key(
        None, values.schema_name, "None, or the name of a schema, of letters, digits and underscores"
    )
    """The schema (on MariaDB and MySQL the database) of our tables. None: that of the app's `MetaData`, if any."""
    table_prefix: str = _key(
        DEFAULT_PREFIX,
        values.table_prefix,
        f"up to {LONGEST_PREFIX} lower-case letters, digits and underscores, beginning with a letter or an underscore",
    )
    """What the names of our tables begin with."""
    redis_url: str | None = _key(
        None,
        values.redis_url,
        'None, "embedded", or a URL redis://, rediss://, unix:// or sentinel://',
        secret=True,
    )
    """Where RQ lives. None: an embedded Valkey under the instance folder."""
    queue: str = _key("webhooks", values.text, "the name of an RQ queue")
    """The RQ queue that wake-ups go to."""
    url_prefix: str = _key(
        "/webhooks", values.path_prefix, 'a path such as "/webhooks", without a slash at its end'
    )
    """Where the API and the console are mounted."""
    security_scheme: tuple[str | t.Mapping[str, t.Any], ...] = _key(
        ("bearer",),
        values.security,
        '"bearer", "cookie", a Security Scheme Object of OpenAPI such as {"type": "apiKey", "in": "header", '
        '"name": "X-Api-Key"}, or a list of these',
    )
    """How callers of the API say who they are; for OpenAPI and for answers of 401."""
    base_url: str | None = _key(
        None, values.base_url, "None, or the URL of the app's root: https://host or https://host/path"
    )
    """Where the app is, for URLs in events. None: at `SERVER_NAME`, if that is set."""
    login_view: values.LoginView = _key(
        None,
        values.login_view,
        "None, the name of an endpoint, a URL, or a callable that returns a response or None",
    )
    """Where the console sends visitors who are not signed in. None: the `login_view` of Flask-Login, if any."""
    url_host: str | None = _key(None, values.host, 'None, or a host such as "app.example.com"')
    """The host of API and console, in an app with `host_matching`."""
    retry: tuple[float, ...] = _key(
        schedule("standard", ()), values.retry, '"standard", "none" or a list of seconds'
    )
    """Seconds before the second, third, ... attempt."""
    timeout: tuple[float, float] = _key(
        (5.0, 15.0),
        values.timeout,
        "two numbers of seconds (to connect, for the whole attempt), the first not larger",
    )
    """Seconds: to connect, and for the whole attempt on the wall clock."""
    connection_lifetime: float = _key(60.0, values.seconds, "a number of seconds above 0")
    """Seconds after which a connection to a receiver carries no further request: then its name is looked up again."""
    connection_idle: float = _key(30.0, values.seconds, "a number of seconds above 0")
    """Seconds without a request after which a connection to a receiver is closed."""
    allow_http: bool = _key(False, values.flag, _FLAG)
    """Whether destinations may be plain `http://`."""
    allowed_networks: tuple[values.Network, ...] = _key(
        (), values.networks, 'a list of networks such as ["127.0.0.0/8"]'
    )
    """Networks that the private-address guard lets through."""
    allowed_ports: tuple[range, ...] = _key(
        (), values.ports, 'a list of ports from 1 to 65535, or of ranges such as "8000-8100"'
    )
    """Ports of destinations that may be used besides 80, 443 and most of those from 1024."""
    ca_bundle: str | None = _key(
        None, values.ca_bundle, "None or the path of a file with certificates in PEM"
    )
    """Authorities that receivers' certificates may be of, besides the public ones."""
    encryption_keys: tuple[str, ...] = _key(
        (), values.keys, "a Fernet key or a list of them, the newest first", secret=True
    )
    """Keys that seal secrets; empty: one is derived from SECRET_KEY."""
    concurrency: int = _key(32, values.count, _COUNT)
    """Requests in flight per worker process."""
    subscription_concurrency: int = _key(4, values.count, _COUNT)
    """Requests in flight to one subscription, over all workers."""
    breaker: Breaker | None = _key(
        Breaker(), values.breaker, "True, False or a mapping with window, minimum, share, pause, longest"
    )
    """When a mostly failing subscription is paused; None: never."""
    disable_after: tuple[int, timedelta] | None = _key(
        (20, timedelta(days=3)), values.disable_after, "None or (failures in a row, time without a success)"
    )
    """When a subscription is disabled: so many failures in a row and so long without a success."""
    enabled: bool = _key(True, values.flag, _FLAG)
    """The operator's stop switch: False still records, and sends nothing."""
    response_limit: int = _key(16_384, values.response_length, "a whole number from 1 to 1048576, in bytes")
    """Bytes of a response body that are kept. A worker may have 400 of them in memory before they are written."""
    payload_limit: int = _key(262_144, values.count, f"{_COUNT}, in bytes")
    """Bytes that the data of one message may have."""
    retention: timedelta = _key(timedelta(days=30), values.duration, "a timedelta or a number of seconds")
    """Age at which finished messages, deliveries and attempts are purged."""
    bulk: str = _key(
        "capture",
        values.one_of("capture", "warn", "raise", "ignore"),
        '"capture", "warn", "raise" or "ignore"',
    )
    """What happens to ORM bulk statements on catalogued models."""
    bulk_limit: int = _key(10_000, values.count, _COUNT)
    """Rows of one bulk statement that are captured; more raise."""
    on_error: str = _key("record", values.one_of("record", "raise", "log"), '"record", "raise" or "log"')
    """What happens when a changed object cannot be serialised: record the message as broken, to be repaired; fail the
    host's commit; or log that the event is lost."""
    record: str = _key("listened", values.one_of("listened", "all"), '"listened" or "all"')
    """Which events are stored: those that match a subscription, or all, so that missed ones can be replayed."""
    egress_proxy: str | None = _key(
        None,
        values.proxy,
        "None or http://host:port, with http:// also where the destinations are https://",
        secret=True,
    )
    """A proxy for all deliveries, which then owns the address check."""
    subscription_limit: int = _key(100, values.count, _COUNT)
    """Subscriptions one owner may have in one environment."""
    listener_limit: int = _key(500, values.count, _COUNT)
    """Listeners one subscription may have."""
    header_limit: int = _key(20, values.count, _COUNT)
    """Custom headers one subscription may have."""
    metadata_limit: int = _key(4_096, values.count, f"{_COUNT}, in bytes")
    """Bytes of JSON that a subscription's metadata may have."""
    body_limit: int = _key(262_144, values.count, f"{_COUNT}, in bytes")
    """Bytes that a request to the API may have."""
    url_limit: int = _key(2_048, values.url_length, "a whole number from 1 to 2048, in characters")
    """Characters that a destination's URL may have."""
    manual_rate: int = _key(20, values.count, _COUNT)
    """Tests, URL checks, retries by hand and replays together that one owner may ask for in a minute."""
    manual_concurrency: int = _key(1, values.few, "a whole number from 1 to 20")
    """Tests and URL checks that one owner may have under way at once."""
    manual_unfinished: int = _key(10, values.count, _COUNT)
    """Retries by hand and replays together that one owner may have begun and that are not done."""
    manual_timeout: float = _key(4.5, values.short_seconds, "a number above 0, at most 5, in seconds")
    """Seconds for which a test or a URL check may hold a thread of the web server."""
    creation_limit: int = _key(500, values.count, _COUNT)
    """Subscriptions that one owner may make in a day, removed ones among them."""
    key_limit: int = _key(1_000, values.count, _COUNT)
    """Idempotency keys of one owner that are remembered at once."""
    replay_rate: float = _key(50.0, values.seconds, "a number above 0, in deliveries a second")
    """Deliveries a second that one replay adds to the live events of its subscription."""
    page_limit: int = _key(100, values.count, _COUNT)
    """Rows on one page of a list."""
    console: values.ConsoleTheme = _key(
        values.ConsoleTheme(),
        values.console_theme,
        'a mapping with any of name, logo, accent ("#rrggbb"), base (a template), home (a URL)',
    )
    """How the console looks."""

    @property
    def only_environment(self) -> str | None:
        """The environment that every event of this app is for; None: the app says it of each."""
        return self.environment if isinstance(self.environment, str) else None

    @property
    def sent_environments(self) -> frozenset[str] | None:
        """The environments whose subscriptions this app sends to; None: all."""
        names = self.send_environments
        if names is None and self.only_environment is not None:
            names = frozenset((self.only_environment,))
        return names if names is not None and names < set(values.ENVIRONMENTS) else None

    def sends_to(self, environment: str) -> bool:
        """Whether this app sends to subscriptions of an environment."""
        return self.sent_environments is None or environment in self.sent_environments

    @classmethod
    def read(cls, config: t.Mapping[str, t.Any]) -> Settings:
        """Read and check every `WEBHOOKS_*` key of an app's configuration.

        :raises ConfigurationError: for the first wrong value.
        """
        fields = {PREFIX + item.name.upper(): item for item in dataclasses.fields(cls)}
        values = {}
        for key, value in config.items():
            if key in fields:
                values[fields[key].name] = _checked(key, value, fields[key])
        return cls(**values)


def slips(config: t.Iterable[str]) -> t.Iterator[str]:
    """Yield a warning for each key that looks like a misspelling of one of ours."""
    ours = [item.name.upper() for item in dataclasses.fields(Settings)]
    for key in config:
        name = key.removeprefix(PREFIX)
        if key.startswith(PREFIX) and name not in ours:
            for near in difflib.get_close_matches(name, ours, n=1, cutoff=0.7):
                yield f"{key} is not a setting of Flask-Webhooks. {suggestion(PREFIX + near, mark='')}"


def _checked(key: str, value: t.Any, item: dataclasses.Field[t.Any]) -> t.Any:
    try:
        return item.metadata["check"](value)
    except (ValueError, TypeError, KeyError) as error:
        is_secret = item.metadata["secret"] and not _PLAIN_ADDRESS.fullmatch(str(value))
        shown = "a value that is not shown here" if is_secret else repr(value)
        message = f"{key} is {shown}. Accepted: {item.metadata['accepted']}."
        if isinstance(error, values.UnfitValue):
            message += f" {str(error)[:1].upper()}{str(error)[1:]}."
        # A traceback shows the cause too, and Python's own errors contain a part of the value.
        raise ConfigurationError(message) from (None if is_secret else error)
