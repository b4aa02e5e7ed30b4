"""What each setting may be: one function for each kind of value.

Each returns the value in the form that `Settings` holds, or raises `ValueError`, `TypeError` or `KeyError`. What is
accepted is written in `settings`; `UnfitValue` adds what is wrong with this value.
"""

from __future__ import annotations

import dataclasses
import inspect
import ipaddress
import os
import re
import typing as t
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit

from ..health import Breaker
from ..models import LONGEST_PREFIX
from ..queue import fault_in
from ..retry import schedule
from ..transport import bundle_fault

ENVIRONMENTS = ("staging", "production")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
LoginView = str | t.Callable[[], t.Any] | None
Environment = str | t.Callable[[str, t.Any, str], str]


class UnfitValue(ValueError):
    """What is wrong with a value, in words that may be shown."""


def text(value: t.Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError
    return value


def flag(value: t.Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def count(value: t.Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError
    return value


def seconds(value: t.Any) -> float:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ValueError
    return float(value)


def duration(value: t.Any) -> timedelta:
    return timedelta(seconds=seconds(value))


def catalog(value: t.Any) -> tuple[str, ...]:
    sources = (value,) if isinstance(value, str) or hasattr(value, "__fspath__") else tuple(value)
    if not sources:
        raise ValueError
    return tuple(text(str(source)) for source in sources)


def environment(value: t.Any) -> Environment:
    if inspect.iscoroutinefunction(value):
        raise UnfitValue("it is async, and is called inside a commit: make it a plain function")
    if callable(value) or value in ENVIRONMENTS:
        return t.cast("Environment", value)
    raise ValueError


def environments(value: t.Any) -> frozenset[str] | None:
    if value is None:
        return None
    names = frozenset((value,) if isinstance(value, str) else value)
    if not names or not names <= set(ENVIRONMENTS):
        raise ValueError
    return names


def redis_url(value: t.Any) -> str | None:
    if value is None or value == "embedded":
        return None
    fault = fault_in(text(value))
    if fault is not None:
        raise UnfitValue(fault)
    return text(value)


def path_prefix(value: t.Any) -> str:
    path = text(value)
    if not path.startswith("/") or path.endswith("/"):
        raise ValueError
    return path


def host(value: t.Any) -> str | None:
    if value is not None and not re.fullmatch(r"[^/\s]+", value):
        raise ValueError
    return t.cast("str | None", value)


def schema_name(value: t.Any) -> str | None:
    if value is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_$]{0,62}", value):
        raise ValueError
    return t.cast("str | None", value)


def table_prefix(value: t.Any) -> str:
    fits = re.fullmatch(rf"[a-z_][a-z0-9_]{{0,{LONGEST_PREFIX - 1}}}", value)
    if not fits or value.startswith(("sqlite_", "pg_")):
        raise ValueError
    return t.cast("str", value)


def security(value: t.Any) -> tuple[str | t.Mapping[str, t.Any], ...]:
    several = (value,) if isinstance(value, str | t.Mapping) else tuple(value)
    for each in several:
        if isinstance(each, str):
            one_of("bearer", "cookie")(each)
        elif each["type"] == "apiKey":
            one_of("header", "query", "cookie")(each["in"])
            _token(each["name"])
        else:
            one_of("http", "oauth2", "openIdConnect", "mutualTLS")(each["type"])
    if not several:
        raise ValueError
    return several


def _token(value: t.Any) -> str:
    """The name of a header or cookie (RFC 9110, section 5.6.2)."""
    if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,255}", value):
        raise ValueError
    return t.cast("str", value)


def base_url(value: t.Any) -> str | None:
    if value is None:
        return None
    parts = urlsplit(text(value))
    has_host = parts.hostname and "@" not in parts.netloc and parts.port != 0
    if parts.scheme not in ("http", "https") or not has_host or parts.query or parts.fragment:
        raise ValueError
    return t.cast("str", value).rstrip("/")


def login_view(value: t.Any) -> LoginView:
    return value if value is None or callable(value) else text(value)


def retry(value: t.Any) -> tuple[float, ...]:
    return schedule(value, ())


def timeout(value: t.Any) -> tuple[float, float]:
    connect, total = value
    connect, total = seconds(connect), seconds(total)
    if connect > total:
        raise ValueError
    return connect, total


def networks(value: t.Any) -> tuple[Network, ...]:
    if isinstance(value, str):
        raise ValueError
    return tuple(ipaddress.ip_network(network) for network in value)


def ca_bundle(value: t.Any) -> str | None:
    if value is None:
        return None
    path = text(os.fspath(value))
    fault = bundle_fault(path)
    if fault is not None:
        raise UnfitValue(fault)
    return os.path.abspath(path)


def ports(value: t.Any) -> tuple[range, ...]:
    if isinstance(value, str | bytes | t.Mapping):
        raise ValueError
    return tuple(_port_range(each) for each in value)


def _port_range(value: t.Any) -> range:
    if isinstance(value, str):
        first, dash, last = value.partition("-")
        numbers = [first, last if dash else first]
        if not all(re.fullmatch(r"[0-9]{1,5}", number) for number in numbers):
            raise ValueError
        low, high = map(int, numbers)
    else:
        low = high = count(value)
    if not 1 <= low <= high <= 65535:
        raise ValueError
    return range(low, high + 1)


def keys(value: t.Any) -> tuple[str, ...]:
    keys = (value,) if isinstance(value, str | bytes) else tuple(value)
    return tuple(key.decode() if isinstance(key, bytes) else text(key) for key in keys)


def breaker(value: t.Any) -> Breaker | None:
    if value is True:
        return Breaker()
    if value is False or value is None:
        return None
    if isinstance(value, Breaker):
        return value
    return Breaker(**{name: seconds(number) for name, number in dict(value).items()})  # type: ignore[arg-type]


def disable_after(value: t.Any) -> tuple[int, timedelta] | None:
    if value is None:
        return None
    failures, silence = value
    return count(failures), duration(silence)


def url_length(value: t.Any) -> int:
    if count(value) > 2_048:  # what the column holds
        raise ValueError
    return count(value)


def few(value: t.Any) -> int:
    if count(value) > 20:  # each place that is taken is one statement
        raise ValueError
    return count(value)


def short_seconds(value: t.Any) -> float:
    if seconds(value) > 5:
        raise ValueError
    return seconds(value)


def response_length(value: t.Any) -> int:
    if count(value) > 1_048_576:
        raise ValueError
    return count(value)


def one_of(*choices: str) -> t.Callable[[t.Any], str]:
    def check(value: t.Any) -> str:
        if value not in choices:
            raise ValueError
        return t.cast("str", value)

    return check


def proxy(value: t.Any) -> str | None:
    if value is None:
        return None
    url = text(value)
    parts = urlsplit(url)  # a port that is no number raises when it is read
    if parts.scheme != "http" or not parts.hostname or parts.port == 0 or parts.path.strip("/"):
        raise ValueError
    return url


@dataclass(frozen=True)
class ConsoleTheme:
    """How the console looks; see docs/console.md."""

    name: str = "Webhooks"
    """The name of the product, next to the logo."""
    logo: str | None = None
    """URL of an image, of this site unless the content security policy allows others."""
    accent: str | None = None
    """`#rrggbb`; made legible by itself in the light and in the dark look."""
    base: str | None = None
    """A template of the app's own with the blocks of `webhooks/base.html`."""
    home: str | None = None
    """Where the name leads: back to the product."""


def console_theme(value: t.Any) -> ConsoleTheme:
    found = value if isinstance(value, ConsoleTheme) else ConsoleTheme(**dict(value))
    for part in dataclasses.fields(ConsoleTheme):
        given = getattr(found, part.name)
        if given is not None:
            text(given)
    if found.accent is not None and not re.fullmatch(r"#[0-9a-fA-F]{6}", found.accent):
        raise ValueError
    return found
