"""Clients of Redis, for each kind of URL; nothing is sent yet."""

from __future__ import annotations

import os
import typing as t

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

__all__ = ["CONNECT_TIMEOUT", "TALK_TIMEOUT", "client_name", "connect", "shown"]

CONNECT_TIMEOUT, TALK_TIMEOUT = 0.2, 0.25
"""Seconds that a web request waits for Redis at most, together well under half a second."""


def shown(url: str) -> str:
    """Return a Redis URL without its credentials, for messages."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


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
    if url.startswith(("sentinel://", "redis+sentinel://")):
        return _sentinel(url, options)
    client: redis.Redis = redis.Redis.from_url(url, **options)
    return client


def client_name() -> str:
    """How this process calls itself: the embedded server is stopped when only its own connections are left."""
    return f"webhooks:{os.getpid()}"


def _sentinel(url: str, options: dict[str, t.Any]) -> redis.Redis:
    """`sentinel://[:password@]host[:port][,host[:port]…]/service[/db]`."""
    rest = url.split("://", 1)[1]
    credentials, _, rest = rest.rpartition("@")
    hosts, _, path = rest.partition("/")
    service, _, database = path.partition("/")
    nodes = []
    for host in hosts.split(","):
        name, _, port = host.partition(":")
        nodes.append((name, int(port or 26379)))
    password = credentials.rpartition(":")[2] or None
    sentinel: t.Any = Sentinel(  # type: ignore[no-untyped-call]
        nodes, sentinel_kwargs=dict(options), password=password, db=int(database or 0), **options
    )
    client: redis.Redis = sentinel.master_for(service or "mymaster")
    return client
