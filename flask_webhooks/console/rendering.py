"""Turns a request into a call of a page function, and what that returns into a response."""

from __future__ import annotations

import typing as t

import sqlalchemy as sa
from flask import Response, g, redirect, render_template, request, url_for
from sqlalchemy.orm import Session
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as Answered

from .. import queries
from ..errors import (
    SecretError,
    SubscriptionChangedError,
    SubscriptionError,
    SubscriptionMissingError,
    ThrottledError,
)
from ..principal import Principal
from ..state import AppState, current_webhooks
from ..visible import is_storable
from ..web import (
    Initiator,
    Refused,
    current_state,
    forget_request,
    headers_of,
    initiator_of,
    log_unreadable,
    protect,
    run_in_session,
    seconds_to_wait,
)
from . import csrf, sign_in
from .formatting import span
from .i18n import _, language, sentence_of
from .pages import Answer, Page, PageContext, Raw, Redirect, Route

__all__ = ["of_http", "secure", "unknown", "view_of"]

POLICY = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'self'; object-src 'none'"


def view_of(route: Route) -> t.Callable[..., Answered]:
    """Return the Flask view of a page."""

    def view(**arguments: str) -> Answered:
        try:
            return _respond(route, arguments)
        except sign_in.SignInNeeded as needed:
            return _redirected(needed)
        except Refused as error:
            return _problem(error)
        except SubscriptionMissingError:
            return _problem(nothing())
        except SubscriptionChangedError:
            return _problem(
                Refused(
                    409,
                    _(
                        "Another request has changed this webhook in the meantime. Go back, reload the page, and "
                        "repeat your change."
                    ),
                )
            )
        except SubscriptionError as error:
            return _problem(Refused(422, sentence_of(error)))
        except ThrottledError as error:
            return _slowed(error)
        except SecretError as error:
            log_unreadable(error)
            return _problem(Refused(500, _("A stored secret cannot be decrypted. Tell the operator.")))
        except Exception as error:
            forget_request(error)
            raise

    view.__name__ = route.name
    view.__doc__ = route.function.__doc__
    return view


def nothing() -> Refused:
    """Return the problem of what does not exist or belongs to another owner; the answer does not say which."""
    return Refused(404, _("There is nothing at this address."))


def _respond(route: Route, arguments: dict[str, str]) -> Answered:
    state = current_state()
    principal = _authenticated(state)
    if route.writes:
        _check_form(state)
        _check_token(state, principal)
    # The body of a request that changes nothing is not read, for it may be of any length.
    form = request.form if route.writes else MultiDict()
    _check_texts(request.args, form)
    if not principal.may(route.right):
        raise Refused(
            403,
            _("You can view this, but you are not allowed to do that. Ask an administrator of your account."),
        )
    if route.operators and not principal.operator:
        raise nothing()
    # Flask-Babel asks the host for the language, once in a request. It may query its database, so it has to happen
    # before `run_in_session` ends the host's transaction.
    language()

    def run(session: Session) -> tuple[PageContext, Answer]:
        context = PageContext(state, principal, session, form, request.args, _is_partial())
        found = route.function(context, **arguments)
        if route.writes:
            session.commit()
        if isinstance(found, Page) and not context.is_partial:
            _check_workers(session.connection())
        return context, found

    # The page is rendered without a connection: the host's templates and context processors may take one.
    response = _shown(*run_in_session(state, run))
    if not route.stores:
        response.headers["Cache-Control"] = "no-store"
    return response


def _authenticated(state: AppState) -> Principal:
    principal = state.load_principal()
    if principal is None:
        if sign_in.is_signed_in():
            raise Refused(
                403,
                _("You are signed in, but your account has no access to webhooks. Ask your administrator."),
            )
        sign_in.sign_in(state, url_for(".index"), is_partial=_is_partial())
        raise Refused(401, _("Sign in to the application first, then come back to this page."))
    g.webhooks_principal = principal
    if not principal.may("read"):
        raise Refused(403, _("You are not allowed to see webhooks. Ask an administrator of your account."))
    return principal


def _check_form(state: AppState) -> None:
    """Read the form, within the limits of bytes and fields."""
    most = state.settings.body_limit
    too_large = Refused(413, _("This form is too large."))
    if (request.content_length or 0) > most or "Transfer-Encoding" in request.headers:
        raise too_large  # no browser sends a form in chunks
    try:
        request.form  # noqa: B018  # parses the form
    except HTTPException as error:  # more parts than Werkzeug takes, or the host's own limit
        raise too_large from error
    except OSError as error:  # servers raise it for a body that ends early
        raise Refused(
            400, _("This form is out of date. Go back, reload the page and send it again.")
        ) from error


def _check_texts(*given: MultiDict[str, str]) -> None:
    """Refuse text that no database can compare with, so that no page function has to check it."""
    for values in given:
        for name, value in values.items(multi=True):
            if not (is_storable(name) and is_storable(value)):
                raise Refused(
                    400,
                    _(
                        "This address or form contains characters that cannot be searched for: a NUL, or half of a "
                        "surrogate pair."
                    ),
                )


def _check_token(state: AppState, principal: Principal) -> None:
    given = request.form.get(csrf.FIELD) or request.headers.get("X-Webhooks-Token", "")
    if initiator_of(request) is Initiator.OTHER_ORIGIN or not csrf.fits(state, principal, given):
        raise Refused(400, _("This form is out of date. Go back, reload the page and send it again."))


# ---- answering -------------------------------------------------------------------------------------------


def _shown(context: PageContext, found: Answer) -> Answered:
    if isinstance(found, Raw):
        response = Response(found.body, found.status, mimetype=found.mimetype)
        response.headers["Cache-Control"] = "private, no-cache"
        if found.filename:
            response.headers.set("Content-Disposition", "attachment", filename=found.filename)
        return response
    if isinstance(found, Redirect):
        values = {**found.values, **({"notice": found.notice} if found.notice else {})}
        address = url_for(f".{found.endpoint}", **values)
        if context.is_partial:  # htmx would follow a redirect and put a whole page into a part of this one
            return Response(status=204, headers={"HX-Redirect": address})
        return redirect(address, 303)
    html = render_template(f"webhooks/{found.template}", **found.values)
    return Response(html, found.status, headers={"Cache-Control": "private, no-cache", **found.headers})


def _problem(error: Refused) -> Response:
    if "webhooks_principal" in g:
        state = current_state()
        state.end_host_transaction()
        with state.own_engine.connect() as connection:
            _check_workers(connection)
    html = render_template("webhooks/problem.html", problem=error)
    return Response(html, error.status, headers={"Cache-Control": "no-store", **error.headers})


def _slowed(error: ThrottledError) -> Response:
    """Answer a request that came too soon, with the time to wait: as a page, or as the part that htmx has requested."""
    wait = seconds_to_wait(error)
    text = _("Too many requests. Try again in %(time)s.", time=span(wait))
    return _waiting(text, {"Retry-After": str(wait)})


def _waiting(text: str, headers: dict[str, str]) -> Response:
    if not _is_partial():
        return _problem(Refused(429, text, headers=headers))
    html = render_template("webhooks/_wait.html", text=text)
    return Response(html, 429, headers={"Cache-Control": "no-store", **headers})


def _is_partial() -> bool:
    """Whether htmx requests a part of a page."""
    return "HX-Request" in request.headers and "HX-History-Restore-Request" not in request.headers


def unknown(path: str) -> Answered:
    """Answer a request for a path below the console that no page has."""
    try:
        _authenticated(current_state())
    except sign_in.SignInNeeded as needed:
        return _redirected(needed)
    except Refused as error:
        return _problem(error)
    return _problem(nothing())


def of_http(error: HTTPException) -> Answered | HTTPException:
    """Return a page for a request that the host's own code has aborted: a limit of Flask-Limiter, a check of its own.

    An abort with a response of its own, such as a redirect to a login, passes unchanged, and so does one for which the
    host has a handler. Errors with a status of 500 or more are left to the host.
    """
    status = error.code or 0
    if error.response is not None or not 400 <= status < 500:
        return error
    headers = headers_of(error)
    if status == 429:
        return _waiting(_("Too many requests. Wait a moment, then try again."), headers)
    return _problem(Refused(status, error.description or error.name, headers=headers))


def _redirected(needed: sign_in.SignInNeeded) -> Answered:
    needed.response.headers["Cache-Control"] = "no-store"
    return needed.response


def secure(response: Response) -> Response:
    """Set the headers that protect a page. A host's base template may load anything, so it gets no policy of ours."""
    protect(response, POLICY if current_webhooks.settings.console.base is None else None)
    response.vary.add("HX-Request")
    return response


def _check_workers(connection: sa.Connection) -> None:
    """Store whether no worker has been seen lately: the page shows that, and it is rendered without a connection."""
    g.webhooks_is_idle = not queries.has_worker(connection)
