"""URLs that the host's schemas make (`url_for`, `URLFor`): they use the base URL that the host has configured.

Within a request Flask builds absolute URLs from the header `Host`, which the client chooses; such URLs must not be
stored and sent to others. Outside of a request it builds none. So while code of the host runs for us, its URLs are
absolute, and built from `WEBHOOKS_BASE_URL` or else from `SERVER_NAME`: the same in a request, a worker and a repair.
If neither is set, a path stays a path, and an absolute URL is refused.
"""

from __future__ import annotations

import contextlib
import typing as t
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import flask.globals
from flask import Flask
from werkzeug.routing import MapAdapter

from .errors import PayloadError

__all__ = ["fix", "fixed", "name_place", "place_of_app", "release"]

_places: WeakKeyDictionary[Flask, str | None] = WeakKeyDictionary()
_adapters: WeakKeyDictionary[Flask, MapAdapter] = WeakKeyDictionary()
Fixed = list[tuple[t.Any, MapAdapter | None]]


class _There(MapAdapter):
    """Builds absolute URLs from the configured base URL."""

    def build(self, *args: t.Any, **options: t.Any) -> str:
        return super().build(*args, **{**options, "force_external": True})


class _Nowhere(MapAdapter):
    """Builds paths only: no base URL is configured."""

    def build(self, *args: t.Any, **options: t.Any) -> str:
        if options.get("force_external"):
            raise PayloadError(
                "It builds an absolute URL, but this app has no configured base URL: in a request Flask would use the "
                "host that the client sends, and outside of one there is none. Set WEBHOOKS_BASE_URL, or SERVER_NAME."
            )
        return super().build(*args, **options)


def place_of_app(config: t.Mapping[str, t.Any], base_url: str | None) -> str | None:
    """Return the URL of an app's root without a trailing slash; None if none is configured."""
    if base_url is not None:
        return base_url
    name = config.get("SERVER_NAME")
    if not name:
        return None
    root = (config.get("APPLICATION_ROOT") or "/").rstrip("/")
    return f"{config.get('PREFERRED_URL_SCHEME') or 'http'}://{name}{root}"


def name_place(app: Flask, base_url: str | None) -> None:
    """Store the base URL of an app."""
    _places[app] = place_of_app(app.config, base_url)
    _adapters.pop(app, None)


def fix() -> Fixed:
    """Make Flask build URLs from the configured base URL, until `release` is called with the returned value."""
    context = flask.globals._cv_app.get(None)
    if context is None or context.app not in _places:
        return []
    variable = getattr(flask.globals, "_cv_request", None)
    # Later versions of Flask have one context for app and request.
    request = variable.get(None) if variable is not None else None
    before: Fixed = [(each, each.url_adapter) for each in (context, request) if each is not None]
    for each, own in before:
        each.url_adapter = _adapter(context.app, own)
    return before


def release(before: Fixed) -> None:
    """Make Flask build URLs as before `fix`."""
    for context, own in before:
        context.url_adapter = own


@contextlib.contextmanager
def fixed() -> t.Iterator[None]:
    """Call `fix` on entry and `release` on exit."""
    before = fix()
    try:
        yield
    finally:
        release(before)


def _adapter(app: Flask, own: MapAdapter | None) -> MapAdapter:
    place = _places[app]
    if place is None:
        # The host name "localhost" appears in no URL. Paths begin with the prefix at which the app is mounted.
        script = own.script_name if own is not None else app.config.get("APPLICATION_ROOT") or "/"
        return _made(_Nowhere, app, "localhost", script, "http")
    if app not in _adapters:
        parts = urlsplit(place)
        _adapters[app] = _made(_There, app, parts.netloc, parts.path or "/", parts.scheme)
    return _adapters[app]


def _made(kind: type[MapAdapter], app: Flask, server: str, script: str, scheme: str) -> MapAdapter:
    bound = app.url_map.bind(server, script, url_scheme=scheme)
    bound.__class__ = kind
    return bound
