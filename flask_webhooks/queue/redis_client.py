"""Clients of Redis, for each kind of URL; nothing is sent yet.

The law of this room: what a URL says is what redis-py reads in it, and what redis-py would pass over in silence (a
fragment, a database that is no number, a host in the place of a path) is refused, for it would mean another server.
What stands before the host never leaves this room, neither in a message nor in a reason: a password may be written in
the place of the user name.
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
"""Seconds that a web request waits for Redis at most, together well under half a second."""

SCHEMES = ("redis", "rediss", "unix")
SENTINEL_SCHEMES = ("sentinel", "redis+sentinel")
SENTINEL_PORT = 26379
_NO_TEXT = frozenset(
    "command_packer credential_provider event_dispatcher host port redis_connect_func retry retry_on_error "
    "socket_keepalive_options socket_type".split()
)
"""Options of a connection that are objects, or that a URL has a place of its own for."""
_ENCODE = "Write #, ?, /, @, [ and ] in a user name or password percent-encoded, such as %23 for #"


@dataclass(frozen=True)
class SentinelAddress:
    """What a `sentinel://` URL says."""

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
    """Return what is wrong with a Redis URL; None if nothing is. It tells no part of the URL but the scheme."""
    scheme = url.partition("://")[0] if "://" in url else ""
    if scheme not in SCHEMES + SENTINEL_SCHEMES:
        return "it does not begin with redis://, rediss://, unix:// or sentinel://"
    try:
        _refuse_what_is_passed_over(url)
        client = connect(url)
        encoder: t.Any = client.connection_pool.get_encoder()
        encoder.encode("")  # there may be no such encoding
        client.connection_pool.make_connection()  # without connecting: it checks the options
        _check_options(parse_qsl(urlsplit(url).query), client.connection_pool.connection_kwargs)
    except _Unfit as error:
        return str(error)
    except Exception:  # whatever redis-py makes of it; its text may tell a part of the password
        return f"redis-py cannot read its host, port or options. {_ENCODE}"
    return "decode_responses must be off: jobs are bytes" if encoder.decode_responses else None


class _Unfit(ValueError):
    """What is wrong with a URL, in words that tell no part of it."""


def _refuse_what_is_passed_over(url: str) -> None:
    parts = urlsplit(url)
    if "#" in url:
        raise _Unfit(f"it has a fragment (#...), which redis-py passes over. {_ENCODE}")
    if any(not character.isprintable() or character.isspace() for character in url):
        raise _Unfit("it has a space or a control character")
    if "@" in parts.query or ("@" in parts.path and parts.scheme != "unix"):
        raise _Unfit(f"it has an @ behind the host. {_ENCODE}")
    parse_qsl(parts.query, strict_parsing=bool(parts.query))  # redis-py passes over what has no "="
    if parts.scheme == "unix":
        if not parts.path.strip("/") or parts.netloc.rpartition("@")[2]:
            raise _Unfit("a unix:// URL has the path of a socket after three slashes: unix:///run/redis.sock")
    elif parts.scheme in SCHEMES:
        _check_database(parts.path)
        if parts.port == 0 or parts.netloc.endswith(":"):
            raise _Unfit("its port is none")


def _check_options(given: t.Sequence[tuple[str, str]], read: t.Mapping[str, t.Any]) -> None:
    """Refuse options with which every connection would fail, or which are passed over.

    :param read: what redis-py has made of all of the URL.
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
    """Return why Redis could not be talked to, in words that may be logged and shown."""
    if not isinstance(error, redis.RedisError | OSError | WebhooksError):
        return type(error).__name__  # its text may hold anything
    text = str(error)
    for secret in _credentials(url):
        # A short one, such as a user `h`, is no part of other words.
        text = re.sub(
            rf"(?<!\w){re.escape(secret)}(?!\w)" if len(secret) < _SHORT else re.escape(secret), "***", text
        )
    return text


_SHORT = 4


def _credentials(url: str) -> list[str]:
    """All user names and passwords that a URL holds, as written and in the clear; the longest first."""
    user, _, password = url.partition("://")[2].partition("?")[0].rpartition("@")[0].partition(":")
    given = parse_qsl(url.partition("?")[2])
    words = {user, password, *(value for name, value in given if name.endswith(("password", "username")))}
    return sorted({form for word in words for form in (word, unquote(word)) if form}, key=len, reverse=True)


def connect(url: str, *, patient: bool = True) -> redis.Redis:
    """Return a client for a redis://, rediss://, unix:// or sentinel:// URL; nothing is sent yet.

    :param patient: for a worker, which waits and retries; else for a web request, which must not.
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
    """How this process calls itself: the embedded server is stopped when only its own connections are left."""
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
