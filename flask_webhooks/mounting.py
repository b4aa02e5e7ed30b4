"""How our two blueprints are put into an app, and leave it: also one that chooses its pages by the host that is asked
for, and one that sends its mistakes elsewhere."""

from __future__ import annotations

import typing as t

from flask import Blueprint, Request
from flask.blueprints import BlueprintSetupState
from flask.sansio.app import App

__all__ = ["Door", "forget", "host_of"]


class Door(Blueprint):
    """A blueprint all of whose rules, that of its static files among them, have one host.

    :param host: for apps with `host_matching`; None for all others.
    """

    def __init__(self, name: str, import_name: str, *, host: str | None, **options: t.Any) -> None:
        super().__init__(name, import_name, **options)
        self.host = host

    def make_setup_state(
        self, app: App, options: dict[str, t.Any], first_registration: bool = False
    ) -> BlueprintSetupState:
        """Have rules added with the host."""
        return _Setup(self, app, options, first_registration)


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


def forget(request: Request) -> None:
    """Drop what was sent with a request that has failed: error trackers take it from there.

    Values of custom headers are credentials, and no tracker can tell that by their names.
    """
    kept = vars(getattr(request, "_get_current_object", lambda: request)())
    for name in ("form", "files", "values", "_cached_data", "_cached_json"):
        kept.pop(name, None)
