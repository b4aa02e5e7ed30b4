"""Makes clients of Redis from each kind of URL; they do not connect yet.

The law of this room: redis-py reads the URL, and any part that it would ignore silently (a fragment, a database that is
no number, a host in the place of a path) is refused, because the client would connect to another server than the URL
means. Credentials never leave this room in a message or a reason, and everything before the host counts as credentials:
a password may be written in the place of the user name.
"""

from __future__ import annotations

import os
import re
import typing as t
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry
from redis.sentinel import Sentinel

from ..errors import WebhooksError

__all__ = ["CONNECT_TIMEOUT", "TALK_TIMEOUT", "client_name", "connect", "fault_in", "reason_of", "shown"]

CONNECT_TIMEOUT, TALK_TIMEOUT = 0.2, 0.25
"""The most seconds that a web request waits to connect and for each answer: well under half a second together."""

SCHEMES = ("redis", "rediss", "unix")
SENTINEL_SCHEMES = ("sentinel", "redis+sentinel")
SENTINEL_PORT = 26379
_NO_TEXT = frozenset(
    "command_packer credential_provider event_dispatcher host port redis_connect_func retry retry_on_error "
    "socket_keepalive_options socket_type".split()
)
"""Options of a connection that need an object and not a text, or that have another place in the URL."""
_ENCODE = "Write #, ?, /, @, [ and ] in a user name or password percent-encoded, such as %23 for #"


@dataclass(frozen=True)
class SentinelAddress:
    """The parts of a `sentinel://` URL."""

    nodes: tuple[tuple[str, int], ...]
    service: str
    options: t.Mapping[str, t.Any] = field(repr=False)
    """For connections to the master."""
    own: t.Mapping[str, t.Any] = field(repr=False)
    """The user name and password of the sentinels themselves."""


def shown(url: str) -> str:
    """Return a Redis URL without its credentials and options, for messages."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('?')[0].rpartition('@')[2]}"


def fault_in(url: str) -> str | None:
    """Return the fault of a Redis URL; None if it has none. The text shows no part of the URL but the scheme."""
    scheme = url.partition("://")[0] if "://" in url else ""
    if scheme not in SCHEMES + SENTINEL_SCHEMES:
        return "it does not begin with redis://, rediss://, unix:// or sentinel://"
    try:
        _refuse_what_is_passed_over(url)
        client = connect(url)
        encoder: t.Any = client.connection_pool.get_encoder()
        encoder.encode("")  # raises if the encoding is unknown
        client.connection_pool.make_connection()  # checks the options, and does not connect
        _check_options(parse_qsl(urlsplit(url).query), client.connection_pool.connection_kwargs)
    except _Unfit as error:
        return str(error)
    except Exception:  # redis-py raises several classes, whose texts may contain a part of the password
        return f"redis-py cannot read its host, port or options. {_ENCODE}"
    return "decode_responses must be off: jobs are bytes" if encoder.decode_responses else None


class _Unfit(ValueError):
    """The fault of a URL, in a text that shows no part of it."""


def _refuse_what_is_passed_over(url: str) -> None:
    parts = urlsplit(url)
    if "#" in url:
        raise _Unfit(f"it has a fragment (#...), which redis-py passes over. {_ENCODE}")
    if any(not character.isprintable() or character.isspace() for character in url):
        raise _Unfit("it has a space or a control character")
    if "@" in parts.query or ("@" in parts.path and parts.scheme != "unix"):
        raise _Unfit(f"it has an @ behind the host. {_ENCODE}")
    parse_qsl(parts.query, strict_parsing=bool(parts.query))  # redis-py ignores an option without "="
    if parts.scheme == "unix":
        if not parts.path.strip("/") or parts.netloc.rpartition("@")[2]:
            raise _Unfit("a unix:// URL has the path of a socket after three slashes: unix:///run/redis.sock")
    elif parts.scheme in SCHEMES:
        _check_database(parts.path)
        if parts.port == 0 or parts.netloc.endswith(":"):
            raise _Unfit("its port is none")


def _check_options(given: t.Sequence[tuple[str, str]], read: t.Mapping[str, t.Any]) -> None:
    """Refuse options with which every connection would fail, or which redis-py ignores.

    :param given: names and values from the URL's query.
    :param read: the options that redis-py has read from the whole URL.
    """
    names = [name for name, _ in given]
    if len(names) != len(set(names)) or not _NO_TEXT.isdisjoint(names):
        raise _Unfit("it has an option twice, one that no text can be, or its host as an option")
    for name, value in read.items():
        is_wait = name in ("socket_timeout", "socket_connect_timeout")
        if isinstance(value, int | float) and not (value > 0 if is_wait else value >= 0):
            raise _Unfit("one of its numbers is too small")
    if not str(read.get("host", "h")).isprintable() or set(" ,;\\").intersection(str(read.get("host", ""))):
        raise _Unfit("its host is none")


def _check_database(path: str) -> int:
    text = unquote(path).strip("/")
    if text and not (text.isascii() and text.isdigit()):
        raise _Unfit(f"the database after the last slash is not a number. {_ENCODE}")
    return int(text or 0)


def reason_of(error: BaseException, url: str) -> str:
    """Return why Redis could not be reached, in a text without credentials, which may be logged and shown."""
    if not isinstance(error, redis.RedisError | OSError | WebhooksError):
        return type(error).__name__  # the text of an unknown error may contain credentials in any form
    text = str(error)
    for secret in _credentials(url):
        # A short one, such as the user `h`, is replaced as a whole word only.
        text = re.sub(
            rf"(?<!\w){re.escape(secret)}(?!\w)" if len(secret) < _SHORT else re.escape(secret), "***", text
        )
    return text


_SHORT = 4


def _credentials(url: str) -> list[str]:
    """Return all user names and passwords in a URL, as written and percent-decoded; the longest first."""
    user, _, password = url.partition("://")[2].partition("?")[0].rpartition("@")[0].partition(":")
    given = parse_qsl(url.partition("?")[2])
    words = {user, password, *(value for name, value in given if name.endswith(("password", "username")))}
    return sorted({form for word in words for form in (word, unquote(word)) if form}, key=len, reverse=True)


def connect(url: str, *, patient: bool = True) -> redis.Redis:
    """Return a client for a redis://, rediss://, unix:// or sentinel:// URL; it does not connect yet.

    :param patient: True for a worker, which waits and retries; False for a web request, which must not.
    """
    options: dict[str, t.Any] = {"client_name": client_name()}
    if not patient:
        options |= {
            "socket_connect_timeout": CONNECT_TIMEOUT,
            "socket_timeout": TALK_TIMEOUT,
            "retry": Retry(NoBackoff(), 0),
        }
    if url.startswith(tuple(f"{scheme}://" for scheme in SENTINEL_SCHEMES)):
        address = _sentinel(url)
        sentinel: t.Any = Sentinel(  # type: ignore[no-untyped-call]
            address.nodes, sentinel_kwargs={**options, **address.own}, **{**options, **address.options}
        )
        master: redis.Redis = sentinel.master_for(address.service)
        return master
    client: redis.Redis = redis.Redis.from_url(url, **options)
    return client


def client_name() -> str:
    """Return the client name of this process; `stop_if_last` recognises our own connections by it."""
    return f"webhooks:{os.getpid()}"


def _sentinel(url: str) -> SentinelAddress:
    """Read `sentinel://[[user]:password@]host[:port][,host[:port]...][/service[/db]][?option=value...]`.

    Credentials and options are those of the master, as in a `redis://` URL; the options `sentinel_username` and
    `sentinel_password` are for the sentinels themselves. IPv6 addresses stand in brackets.
    """
    rest, _, query = url.partition("://")[2].partition("?")
    authority, _, path = rest.partition("/")
    credentials, _, hosts = authority.rpartition("@")
    service, _, database = path.partition("/")
    options: dict[str, t.Any] = parse_url(f"redis:///?{query}")  # type: ignore[no-untyped-call]
    own = {name: options.pop(f"sentinel_{name}", None) for name in ("username", "password")}
    user, colon, password = credentials.partition(":")
    if "," in user:
        raise _Unfit(
            "it has a user name and password behind its first host. They stand once, before all hosts"
        )
    if user and not colon:
        raise _Unfit("it has a user name without a password. Write :password@ where there is no user name")
    given = {"username": unquote(user) or None, "password": unquote(password) or None}
    options |= {name: value for name, value in given.items() if value is not None}
    options.setdefault("db", _check_database(database))
    nodes = tuple(map(_node, hosts.split(",")))
    own = {name: value for name, value in own.items() if value is not None}
    return SentinelAddress(nodes, unquote(service) or "mymaster", options, own)


def _node(text: str) -> tuple[str, int]:
    """Return host and port of one sentinel."""
    parts = urlsplit(f"//{text}")
    if not parts.hostname or parts.path or parts.port == 0:
        raise _Unfit("a sentinel has no host")
    host = unquote(parts.hostname) if "%25" in parts.hostname else parts.hostname  # of a zone (RFC 6874)
    return host, parts.port or SENTINEL_PORT
