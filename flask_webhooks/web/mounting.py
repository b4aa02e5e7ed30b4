"""How our two blueprints are put into an app: also one that chooses its pages by the host that is asked for, and one
that has Flask-WTF's `CSRFProtect`."""

from __future__ import annotations

import sys
import typing as t

from flask import Blueprint, Response, current_app
from flask.blueprints import BlueprintSetupState
from flask.sansio.app import App

__all__ = ["Door", "host_of", "protect"]

_PROTECTION = {
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
}


class Door(Blueprint):
    """A blueprint all of whose rules, that of its static files among them, have one host.

    It is exempt from the host's `CSRFProtect`, which knows no token of ours and would refuse every change. Our own
    checks are at least as strict: the console has a token in every form, the API lets only pass what no other site can
    make a browser send.

    :param host: for apps with `host_matching`; None for all others.
    """

    def __init__(self, name: str, import_name: str, *, host: str | None, **options: t.Any) -> None:
        super().__init__(name, import_name, **options)
        self.host = host
        # This runs before the request functions, of which `CSRFProtect` is one, and whichever extension is
        # initialised first.
        self.url_value_preprocessor(self._exempt)

    def make_setup_state(
        self, app: App, options: dict[str, t.Any], first_registration: bool = False
    ) -> BlueprintSetupState:
        """Have rules added with the host."""
        return _Setup(self, app, options, first_registration)

    def _exempt(self, endpoint: str | None, values: dict[str, t.Any] | None) -> None:
        module = sys.modules.get("flask_wtf.csrf")
        protect = current_app.extensions.get("csrf")
        if module is not None and isinstance(protect, module.CSRFProtect):
            protect.exempt(self)


class _Setup(BlueprintSetupState):
    def add_url_rule(
        self,
        rule: str,
        endpoint: str | None = None,
        view_func: t.Any = None,
        **options: t.Any,
    ) -> None:
        host = host_of(self)
        super().add_url_rule(rule, endpoint, view_func, **({"host": host} if host else {}), **options)


def host_of(setup: BlueprintSetupState) -> str | None:
    """Return the host of a blueprint of ours, for rules that are added without it."""
    return t.cast("Door", setup.blueprint).host


def protect(response: Response, policy: str | None) -> None:
    """Set the headers of a page that keep a browser from guessing its type and other sites from framing it.

    What the host has set stays.

    :param policy: what the page may load and run; None: the host decides that.
    """
    for name, value in _PROTECTION.items():
        response.headers.setdefault(name, value)
    if policy is not None:
        response.headers.setdefault("Content-Security-Policy", policy)
