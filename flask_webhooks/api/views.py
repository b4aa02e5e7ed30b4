"""Turns a request into a view's arguments, and what the view returns into a response."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import typing as t

import flask
import marshmallow as ma
from flask import Response, request
from sqlalchemy.orm import Session
from webargs.flaskparser import FlaskParser
from werkzeug.http import parse_etags

from ..errors import SecretError, SubscriptionError, ThrottledError
from ..state import AppState
from ..web import Refused, current_state, forget_request, idempotency, run_in_session, version_of
from .operations import Answer, Call, Operation
from .problems import answer, of_error, unauthenticated
from .schemas.fields import UUID
from .security import check_origin

__all__ = ["view_of"]

_ID = re.compile(UUID)
MOST_PLACES = 10
"""The most fields that `detail` names; `errors` can have more."""
_KEY = re.compile(r"[!-~]([ -~]{0,253}[!-~])?")
_COMPRESSED = re.compile(r'(?:W/)?"([0-9]{1,18})(?:(?:--?|[:;])(?:gzip|deflate|br|zstd))?"')
"""Our ETag after a server has compressed the answer: `W/"1"` of nginx, `"1-gzip"` of Apache, `"1:gzip"` of
Flask-Compress. Ours stands for a version and not for bytes, so the compression does not matter."""


def view_of(operation: Operation) -> t.Callable[..., Response]:
    """Return the Flask view of an operation."""

    def view(**arguments: str) -> Response:
        try:
            return _respond(operation, arguments)
        except (Refused, SubscriptionError, SecretError, ThrottledError) as error:
            return answer(of_error(error))
        except Exception as error:
            forget_request(error)  # the frames hold the body and secrets, which an error tracker would show
            raise

    view.__name__ = operation.name
    view.__doc__ = operation.view.__doc__
    return view


def _respond(operation: Operation, arguments: dict[str, str]) -> Response:
    state = current_state()
    principal = state.load_principal()
    if principal is None:
        raise unauthenticated()
    # All checks that need no body come first: a caller without the right must not make us read a large one.
    if operation.writes:
        check_origin(request, state)
    if not principal.may(operation.right):
        raise Refused(403, f"This needs the right {operation.right!r}, which you do not have.")
    _check_ids(arguments)
    raw = _read(state) if operation.writes else b""
    body = _parse_body(state, operation, raw)
    query = _parse_query(operation)

    def run(session: Session) -> Response:
        return _run(operation, Call(state, principal, session, body, query, _version()), raw, arguments)

    return run_in_session(state, run)


def _run(operation: Operation, call: Call, raw: bytes, arguments: dict[str, str]) -> Response:
    slot = _slot(call, operation, raw)
    if slot is not None and slot.first is not None:
        return _repeated(call, operation, slot.first, arguments)
    with slot if slot is not None else contextlib.nullcontext():
        returned = operation.view(call, **arguments)
        response = _shown(operation, returned)
    # The slot commits what the view did and the key in one transaction, so there is never one without the other.
    made = returned.made if isinstance(returned, Answer) else ()
    if slot is not None and made is not None:
        first = slot.commit(response.status_code, made)
        return response if first is None else _repeated(call, operation, first, arguments)
    if operation.writes:
        call.session.commit()
    return response


def _slot(call: Call, operation: Operation, raw: bytes) -> idempotency.Slot | None:
    """Return the slot that stores the answer of this request; None if it has no `Idempotency-Key`.

    :raises Refused: the key is malformed, or was used for another request.
    """
    key = request.headers.get("Idempotency-Key")
    if key is None or not operation.is_repeatable:
        return None
    if not _KEY.fullmatch(key):
        message = "An Idempotency-Key is 1 to 255 printable ASCII characters."
        raise Refused(400, message, fields={"Idempotency-Key": [message]})
    # An operator's answer shows more than an owner's, so that flag is part of the request.
    asked = json.dumps([request.method, request.full_path, call.principal.operator]).encode()
    digest = hashlib.sha256(asked + b"\n" + raw).hexdigest()
    return idempotency.begin(call, key, digest, reserve=operation.is_final)


def _repeated(
    call: Call, operation: Operation, first: idempotency.First, arguments: dict[str, str]
) -> Response:
    """Answer a repeated request with the present state of what the first one has made."""
    assert operation.repeat is not None  # noqa: S101  # else it takes no key
    response = first.answer
    if response is None:
        response = _shown(operation, operation.repeat(call, first.made, **arguments))
        response.status_code = first.status
    response.headers["Idempotency-Replayed"] = "true"
    return response


def _check_ids(arguments: dict[str, str]) -> None:
    """Answer 404 to what cannot be an id: PostgreSQL raises an error for a text that is no UUID."""
    for name, value in arguments.items():
        if name.endswith("_id") and not _ID.fullmatch(value):
            raise Refused(404, f"There is no such {name.removesuffix('_id')}.")


# ---- reading ---------------------------------------------------------------------------------------------


def _read(state: AppState) -> bytes:
    """Return the body: empty, or JSON within the limit of bytes."""
    most = state.settings.body_limit
    if (request.content_length or 0) > most:
        raise _too_large(most)
    if "Transfer-Encoding" in request.headers and not request.environ.get("wsgi.input_terminated"):
        # The server does not decode chunks, so the body would look empty.
        raise Refused(400, "Send the body in one piece, with the header Content-Length.")
    try:
        # Code that has read the body before us, such as Flask-Security for a token, has left it in the request.
        raw = request.stream.read(most + 1) or request.get_data()
    except OSError:  # servers raise it for malformed and for missing chunks
        raise Refused(400, "The body ended early, or does not match its headers.") from None
    if len(raw) > most:
        raise _too_large(most)
    if raw and request.mimetype != "application/json":
        raise Refused(415, "Send JSON, with the header Content-Type: application/json.")
    return raw


def _too_large(most: int) -> Refused:
    return Refused(413, f"The body is larger than {most} bytes.")


class _Parser(FlaskParser):
    """webargs for a body that `_read` has read, within the limit of bytes."""

    def __init__(self, raw: bytes) -> None:
        super().__init__()
        self._raw = raw

    def load_json(self, req: flask.Request, schema: ma.Schema) -> t.Any:
        """Return the body; an empty one is an empty object."""
        if not self._raw:
            return {}
        try:
            # Given bytes, `json` would accept UTF-16 and UTF-32 too (RFC 8259, section 8.1).
            text = self._raw.decode("utf-8-sig")
            return json.loads(text, parse_constant=_no_constant, object_pairs_hook=_members)
        except (ValueError, RecursionError):
            raise Refused(400, "The body is not valid JSON, or an object in it has a name twice.") from None

    def handle_error(self, error: ma.ValidationError, *args: t.Any, **kwargs: t.Any) -> t.NoReturn:
        """Raise the error again: webargs would abort with a response of its own."""
        raise error


def _members(pairs: list[tuple[str, t.Any]]) -> dict[str, t.Any]:
    """Refuse an object with one name twice: a proxy or a middleware may have checked the other value."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def _no_constant(name: str) -> t.NoReturn:
    raise ValueError(name)  # NaN and Infinity are not JSON (RFC 8259, section 6)


def _parse_body(state: AppState, operation: Operation, raw: bytes) -> dict[str, t.Any]:
    if operation.body is None:
        if raw.strip() not in (b"", b"{}"):
            raise Refused(422, message := "This operation takes no body.", fields={"": [message]})
        return {}
    try:
        parsed: dict[str, t.Any] = _Parser(raw).parse(operation.body(), request, location="json")
    except ma.ValidationError as error:
        fields = dict(_flat(_inner(error, "json")))
        valid = error.valid_data.get("json") if isinstance(error.valid_data, dict) else None
        valid = error.valid_data if valid is None else valid
        if operation.faults is not None and isinstance(valid, dict):
            for name, messages in operation.faults(state, valid).items():
                fields.setdefault(name, messages)
        raise _invalid(fields) from None
    return parsed


def _parse_query(operation: Operation) -> dict[str, t.Any]:
    twice = [name for name, values in request.args.lists() if len(values) > 1]
    if twice:  # a proxy or a middleware may have checked the other value
        raise _invalid({name: ["Send it only once."] for name in twice})
    schema = operation.query or ma.Schema
    try:
        parsed: dict[str, t.Any] = _Parser(b"").parse(
            schema(unknown=ma.RAISE), request, location="query", unknown=ma.RAISE
        )
    except ma.ValidationError as error:
        raise _invalid(dict(_flat(_inner(error, "query")))) from None
    return parsed


def _inner(error: ma.ValidationError, location: str) -> t.Any:
    messages: t.Any = error.messages
    return messages.get(location, messages) if isinstance(messages, dict) else messages


def _flat(messages: t.Any, path: str = "") -> t.Iterator[tuple[str, list[str]]]:
    """Make `events.0.event` of `{"events": {0: {"event": ["…"]}}}`."""
    if isinstance(messages, dict):
        for key, inner in messages.items():
            key = "" if key == "_schema" else str(key)
            yield from _flat(inner, f"{path}.{key}".strip("."))
    else:
        yield path, [str(message) for message in (messages if isinstance(messages, list) else [messages])]


def _invalid(fields: dict[str, list[str]]) -> Refused:
    [detail, *more] = [message for messages in fields.values() for message in messages]
    places = ", ".join([name or "the body" for name in fields][:MOST_PLACES])
    places += ", …" if len(fields) > MOST_PLACES else ""
    return Refused(
        422, f"There are {len(more) + 1} mistakes: see {places}." if more else detail, fields=fields
    )


def _version() -> int | None:
    """Return the version that `If-Match` names (RFC 9110, section 13.1.1); see `Call.version`."""
    if "If-Match" not in request.headers or request.if_match.star_tag:
        return None
    asked = parse_etags(_own_etag(request.headers["If-Match"]))
    tags = [tag or "" for tag in asked]  # Werkzeug returns None for the empty tag `""`
    return version_of(tags[0]) if len(tags) == 1 else -1


def _own_etag(tags: str) -> str:
    return _COMPRESSED.sub(r'"\1"', tags)


# ---- answering -------------------------------------------------------------------------------------------


def _shown(operation: Operation, returned: t.Any) -> Response:
    given = returned if isinstance(returned, Answer) else Answer(returned)
    status = given.status or operation.status
    if given.raw is not None:
        response = Response(given.raw, status, mimetype=given.mimetype)
        if given.filename is not None:
            response.headers.set("Content-Disposition", "attachment", filename=given.filename)
            response.headers["X-Content-Type-Options"] = "nosniff"
    elif status == 204:
        response = Response(status=204)
        del response.headers["Content-Type"]  # Werkzeug sets one also without content
    else:
        shown = operation.answer().dump(given.body) if operation.answer is not None else given.body
        response = Response(json.dumps(shown), status, mimetype="application/json")
    if given.version is not None:
        response.set_etag(str(given.version))
    # `no-cache`: a client may keep the answer, and has to ask with its ETag whether it is still the present one.
    response.headers["Cache-Control"] = "no-store" if operation.shows_secrets else "private, no-cache"
    if operation.has_version and not operation.writes:
        response.make_conditional(_with_own_etags(request.environ))
        if response.status_code == 412:  # RFC 9110 allows `If-Match` in a GET too
            raise Refused(412, "It has another version than If-Match names. Leave that header out of a GET.")
    return response


def _with_own_etags(environ: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Return a request's environment with ETags as we have sent them, before any compression."""
    names = ("HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH")
    return {**environ, **{name: _own_etag(environ[name]) for name in names if name in environ}}
