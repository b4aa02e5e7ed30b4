"""The class of our two blueprints, for apps with `host_matching` or Flask-WTF's `CSRFProtect` too."""

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
    """A blueprint whose rules, also that of its static files, all have one host.

    It is exempt from the host's `CSRFProtect`, which would refuse every change because it does not accept our tokens.
    Our own checks are at least as strict: the console has a token in every form, and the API accepts only requests
    that no other site can make a browser send.

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
        """Return the set-up state that adds the host to each rule."""
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
    """Set the headers that keep a browser from guessing the type of a page, and other sites from framing it.

    Headers that the host has set keep their values.

    :param policy: the Content-Security-Policy; None: the host decides.
    """
    for name, value in _PROTECTION.items():
        response.headers.setdefault(name, value)
    if policy is not None:
        response.headers.setdefault("Content-Security-Policy", policy)
