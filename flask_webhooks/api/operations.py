"""A route as one value, from which the URL rule, the parsing, the checks and OpenAPI are made."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass, field

import marshmallow as ma

from ..principal import Right
from ..state import AppState
from ..web import RequestContext

__all__ = ["OPERATIONS", "Answer", "Call", "Operation", "operation", "paths"]


@dataclass(frozen=True)
class Call(RequestContext):
    """One request, as a view sees it."""

    body: dict[str, t.Any] = field(repr=False)
    query: dict[str, t.Any]
    version: int | None
    """The version in `If-Match`; None: any; -1, which no subscription has: the header names no version of ours."""

    @property
    def limit(self) -> int:
        """The number of rows on a page: what the query asks for, at most `WEBHOOKS_PAGE_LIMIT`."""
        most = self.state.settings.page_limit
        return min(int(self.query.get("limit", most)), most)


@dataclass(frozen=True)
class Answer:
    """The return value of a view that sets more than the body."""

    body: t.Any = field(repr=False)
    status: int | None = None
    """None: the status of the operation."""
    version: int | None = None
    """Sent as the ETag."""
    raw: bytes | None = field(default=None, repr=False)
    """Sent unchanged, instead of `body`."""
    mimetype: str = "application/json"
    made: tuple[str, ...] | None = ()
    """Ids from which `repeat` makes the answer to a repeated request; None: the request has changed nothing."""
    filename: str | None = None
    """A browser saves the answer under this name and does not display it."""


View = t.Callable[..., t.Any]


@dataclass(frozen=True)
class Operation:
    """One method on one path."""

    method: str
    path: str
    """Below `/api`, as Flask writes it: `/subscriptions/<id>`."""
    view: View
    right: Right
    summary: str
    body: type[ma.Schema] | None
    query: type[ma.Schema] | None
    answer: type[ma.Schema] | None
    """None: no content, or content that no schema describes."""
    status: int
    errors: tuple[int, ...]
    has_version: bool
    """Answers with an ETag, and honours `If-Match`."""
    is_final: bool
    """Whether it does what no rollback undoes, such as sending: its `Idempotency-Key` is reserved first."""
    repeat: View | None
    """Makes the answer to a repeated request from `Answer.made` of the first, and changes nothing. None: the operation
    takes no `Idempotency-Key`."""
    mimetype: str | None
    """Media type of an answer that no schema describes."""
    faults: t.Callable[[AppState, dict[str, t.Any]], dict[str, list[str]]] | None
    """Finds further mistakes in the valid fields of a body that has invalid ones, so that one answer names all."""

    @property
    def name(self) -> str:
        """The name of the endpoint, without that of the blueprint."""
        return self.view.__name__

    @property
    def writes(self) -> bool:
        """Whether it changes anything."""
        return self.method != "GET"

    @property
    def is_repeatable(self) -> bool:
        """Whether it takes an `Idempotency-Key`."""
        return self.repeat is not None

    @property
    def shows_secrets(self) -> bool:
        """Whether its answer holds secrets, so that no cache may keep it."""
        return self.right == "secrets" or (self.answer is not None and "secret" in self.answer().fields)

    @property
    def openapi_path(self) -> str:
        """The path in the syntax of OpenAPI: `/subscriptions/{id}`."""
        return re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", self.path)

    @property
    def arguments(self) -> list[str]:
        """The names of the path's variables."""
        return re.findall(r"<(?:\w+:)?(\w+)>", self.path)


OPERATIONS: list[Operation] = []
"""All operations, in the order of the documentation."""

F = t.TypeVar("F", bound=View)


def operation(
    method: str,
    path: str,
    summary: str,
    *,
    right: Right,
    body: type[ma.Schema] | None = None,
    query: type[ma.Schema] | None = None,
    answer: type[ma.Schema] | None = None,
    status: int = 200,
    errors: tuple[int, ...] = (),
    has_version: bool = False,
    is_final: bool = False,
    repeat: View | None = None,
    mimetype: str | None = None,
    faults: t.Callable[[AppState, dict[str, t.Any]], dict[str, list[str]]] | None = None,
) -> t.Callable[[F], F]:
    """Register a view as an operation. Its docstring becomes the description in OpenAPI.

    :param right: the right that the principal needs; there is no default, so that it cannot be forgotten.
    :param errors: statuses in addition to those that follow from the other values (401, 403, 404 for ids, 422 for
        input, ...).
    """

    def register(view: F) -> F:
        OPERATIONS.append(
            Operation(
                method=method,
                path=path,
                view=view,
                right=right,
                summary=summary,
                body=body,
                query=query,
                answer=answer,
                status=status,
                errors=errors,
                has_version=has_version,
                is_final=is_final,
                repeat=repeat,
                mimetype=mimetype,
                faults=faults,
            )
        )
        return view

    return register


def paths() -> dict[str, list[str]]:
    """Return each path with its methods."""
    found: dict[str, list[str]] = {}
    for each in OPERATIONS:
        found.setdefault(each.path, []).append(each.method)
    return found
