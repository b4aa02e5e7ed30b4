"""What goes wrong, as an answer: JSON below ``/api/``, werkzeug's plain page elsewhere.

``{"error": "not_found", "message": "There is no record 7 in invoices.", "fields": {}}``; ``fields`` has the
messages of each field that was refused.
"""

from __future__ import annotations

import typing as t

from flask import Blueprint, request
from flask.typing import ResponseReturnValue
from marshmallow import ValidationError
from sqlalchemy.exc import IntegrityError
from werkzeug.exceptions import HTTPException

from .models import Inconsistent, TransitionRefused, db


def answer_in_json(api: Blueprint) -> None:
    """Turn what a view of the API raises into an answer, also when its address matches none of them."""
    api.app_errorhandler(HTTPException)(_refused)
    api.register_error_handler(ValidationError, _invalid)
    api.register_error_handler(Inconsistent, _inconsistent)
    api.register_error_handler(TransitionRefused, _wrong_status)
    api.register_error_handler(IntegrityError, _still_referred_to)


def _problem(status: int, error: str, message: str, fields: t.Any = None) -> tuple[dict[str, t.Any], int]:
    db.session.rollback()
    return {"error": error, "message": message, "fields": fields or {}}, status


def _refused(error: HTTPException) -> ResponseReturnValue:
    if not request.path.startswith("/api/") or error.code is None:
        return error
    body, status = _problem(error.code, error.name.lower().replace(" ", "_"), error.description or error.name)
    allowed = getattr(error, "valid_methods", None)
    return body, status, {"Allow": ", ".join(allowed)} if allowed else {}


def _invalid(error: ValidationError) -> ResponseReturnValue:
    return _problem(422, "invalid", "Some fields were refused.", _by_field(error))


def _by_field(error: ValidationError) -> dict[str, t.Any]:
    return error.messages if isinstance(error.messages, dict) else {error.field_name: error.messages}


def _inconsistent(error: Inconsistent) -> ResponseReturnValue:
    return _problem(422, "invalid", str(error), error.fields)


def _wrong_status(error: TransitionRefused) -> ResponseReturnValue:
    return _problem(409, "wrong_status", str(error), {"status": [str(error)]})


def _still_referred_to(error: IntegrityError) -> ResponseReturnValue:
    return _problem(409, "conflict", "Other records still refer to this one. Delete or change those first.")
