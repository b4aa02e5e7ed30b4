"""Who is signed in: by session cookie in a browser, by bearer token in a script."""

from __future__ import annotations

import hmac
import secrets

import sqlalchemy as sa
from flask import Blueprint, abort, redirect, render_template, request, session, url_for
from werkzeug.security import generate_password_hash
from werkzeug.wrappers import Response

from .database import SAFE_METHODS
from .models import ApiToken, User, db

bp = Blueprint("auth", __name__)

# Compared with when there is no such user, so that the answer takes as long as for a wrong password.
_NOBODY = generate_password_hash(secrets.token_hex())


def current_user() -> User | None:
    """Return the user of this request; ``None`` if no user is signed in."""
    return _bearer() if "Authorization" in request.headers else _signed_in()


def _bearer() -> User | None:
    authorization = request.authorization
    if authorization is None or authorization.type != "bearer" or not authorization.token:
        return None
    digest = ApiToken.digest_of(authorization.token)
    return db.session.scalar(sa.select(User).join(ApiToken).where(ApiToken.digest == digest))


def _signed_in() -> User | None:
    user_id = session.get("user_id")
    return None if user_id is None else db.session.get(User, user_id)


def csrf_token() -> str:
    """Return the token that forms of this session carry."""
    token: str = session.setdefault("csrf_token", secrets.token_urlsafe(32))
    return token


def check_csrf() -> None:
    """Refuse a change that another site may have made the browser send. Runs before each request.

    A request with an ``Authorization`` header needs no token: browsers do not add one by themselves, and
    :func:`current_user` then looks at nothing else.
    """
    if request.method in SAFE_METHODS or "Authorization" in request.headers:
        return
    given = request.headers.get("X-CSRF-Token") or request.form.get("csrf_token", "")
    if not hmac.compare_digest(given.encode(), session.get("csrf_token", secrets.token_hex()).encode()):
        abort(400, "The CSRF token is missing or out of date. Load the page again and repeat.")


bp.before_request(check_csrf)
bp.add_app_template_global(csrf_token)


@bp.get("/sign-in")
def sign_in_form() -> str:
    return render_template("sign_in.html")


@bp.post("/sign-in")
def sign_in() -> Response | tuple[str, int]:
    email, password = request.form.get("email", "").strip().lower(), request.form.get("password", "")
    user = db.session.scalar(sa.select(User).where(User.email == email))
    if not _is_password_of(user, password) or user is None:
        return render_template("sign_in.html", email=email, refused=True), 422
    session.clear()  # nothing from before the sign-in counts, the CSRF token included
    session["user_id"] = user.id
    return redirect(url_for("pages.home"))


def _is_password_of(user: User | None, password: str) -> bool:
    return User(password_hash=_NOBODY).has_password(password) if user is None else user.has_password(password)


@bp.post("/sign-out")
def sign_out() -> Response:
    session.clear()
    return redirect(url_for("auth.sign_in_form"))
