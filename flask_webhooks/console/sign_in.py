"""Redirects visitors: from the prefix that the console shares with the API, and to the host's own sign-in."""

from __future__ import annotations

import sys
import typing as t
from urllib.parse import urlencode, urlsplit

from flask import current_app, make_response, redirect, request, url_for
from flask.blueprints import BlueprintSetupState
from werkzeug.routing import Rule
from werkzeug.wrappers import Response

from ..config import LoginView
from ..state import AppState
from ..web import host_of

__all__ = ["SignInNeeded", "has_sign_in", "is_signed_in", "redirect_to_console", "sign_in"]

MARK = "signed_in"
"""A parameter of the URL that the host's sign-in returns to. With it a visitor without a principal is not redirected to
the sign-in again, which would be a loop."""


def redirect_to_console(setup: BlueprintSetupState) -> None:
    """Redirect `/webhooks/` to the console.

    The last part of this rule is a variable with one possible value. Werkzeug prefers rules without variables: a page
    of the host at this URL has precedence, whichever rule was registered first.
    """
    shared = (setup.url_prefix or "").rpartition("/")[0]
    before, _slash, last = shared.rpartition("/")
    endpoint = f"{setup.blueprint.name}.home"
    rule = f'{before}/<any("{last}"):prefix>/'
    setup.app.url_map.add(Rule(rule, endpoint=endpoint, host=host_of(setup), methods=["GET"]))

    def home(prefix: str) -> Response:
        return redirect(url_for(f"{setup.blueprint.name}.index"))

    setup.app.view_functions[endpoint] = home


class SignInNeeded(Exception):
    """A visitor without a principal, who is redirected to the host's sign-in."""

    def __init__(self, response: Response) -> None:
        super().__init__("This visitor is redirected to the sign-in.")
        self.response = response


def sign_in(state: AppState, index: str, *, is_partial: bool) -> None:
    """Redirect a visitor without a principal to the host's sign-in, unless they come from it or there is none.

    :param index: the URL of the first page, for visitors who have sent a form.
    :raises SignInNeeded: with the redirect.
    """
    if MARK in request.args or not has_sign_in(state):
        return
    if is_partial:  # a part of a page: the browser reloads the whole one, which redirects
        raise SignInNeeded(Response(status=204, headers={"HX-Refresh": "true"}))
    if request.method not in ("GET", "HEAD"):  # a sign-in cannot come back to a form that was sent
        raise SignInNeeded(redirect(index, 303))
    found = _response_of(state.settings.login_view)
    if found is not None:
        raise SignInNeeded(make_response(found))


def has_sign_in(state: AppState) -> bool:
    """Whether we know where the host's users sign in."""
    return state.settings.login_view is not None or _manager() is not None


def is_signed_in() -> bool:
    """Whether Flask-Login knows a visitor for whom there is no principal."""
    module = _flask_login()
    return module is not None and bool(module.current_user.is_authenticated)


def _response_of(view: LoginView) -> t.Any:
    if callable(view):
        return view()
    if view is None:
        return _manager().unauthorized()
    mark = "&" if request.query_string else "?"
    back = f"{request.root_path}{request.full_path.rstrip('?')}{mark}{MARK}=1"
    if "/" not in view:
        return redirect(url_for(view, next=back))
    parts = urlsplit(view)
    return redirect(
        parts._replace(query="&".join(filter(None, (parts.query, urlencode({"next": back}))))).geturl()
    )


def _flask_login() -> t.Any:
    """Return the module of Flask-Login if the host uses it."""
    module = sys.modules.get("flask_login")
    manager = getattr(current_app, "login_manager", None)
    return module if module is not None and isinstance(manager, module.LoginManager) else None


def _manager() -> t.Any:
    """Return Flask-Login's `LoginManager` if it has a login view or a callback.

    None for a visitor who is signed in there: the login view would redirect back here, in a loop.
    """
    if _flask_login() is None or is_signed_in():
        return None
    manager: t.Any = current_app.login_manager  # type: ignore[attr-defined]
    leads = manager.unauthorized_callback or manager.login_view
    return manager if leads or manager.blueprint_login_views.get(request.blueprint) else None
