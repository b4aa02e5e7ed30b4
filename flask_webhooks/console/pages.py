"""A page as one value, from which the URL rule, the checks and the response are made."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from werkzeug.datastructures import MultiDict

from ..ids import is_id
from ..principal import Right
from ..web import RequestContext

__all__ = ["PAGES", "Page", "PageContext", "Raw", "Redirect", "Route", "page"]


@dataclass(frozen=True)
class PageContext(RequestContext):
    """One request, as a page function sees it."""

    form: MultiDict[str, str] = field(repr=False)
    query: MultiDict[str, str]
    is_partial: bool
    """Whether htmx makes the request, and gets only the part of the page that changed."""

    def identifier(self, name: str) -> str:
        """Return an id from the query; empty if it cannot be one, so that no database gets it."""
        text = self.query.get(name, "")
        return text if is_id(text) else ""


@dataclass(frozen=True)
class Page:
    """A template and its values."""

    template: str
    """Path below `webhooks/`."""
    values: dict[str, t.Any] = field(default_factory=dict, repr=False)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Redirect:
    """The answer to a POST: a redirect."""

    endpoint: str
    """The name of a page."""
    values: dict[str, t.Any] = field(default_factory=dict)
    notice: str = ""
    """The notice that the page shows: a key of `template_values._notices`."""


@dataclass(frozen=True)
class Raw:
    """An answer that is not HTML."""

    body: str | bytes = field(default="", repr=False)
    mimetype: str = "text/plain"
    status: int = 200
    filename: str = ""
    """With a name, a browser saves the answer and does not display it."""


Answer = Page | Redirect | Raw
Function = t.Callable[..., Answer]


@dataclass(frozen=True)
class Route:
    """One method on one path."""

    method: t.Literal["GET", "POST"]
    path: str
    """Below the console's prefix."""
    function: Function
    right: Right
    operators: bool
    """Whether it exists for operators alone."""
    stores: bool
    """Whether the browser may store the answer; it must not store a page with secrets."""

    @property
    def name(self) -> str:
        """The name of the endpoint, without that of the blueprint."""
        return self.function.__name__

    @property
    def writes(self) -> bool:
        """Whether it changes anything."""
        return self.method == "POST"


PAGES: list[Route] = []

F = t.TypeVar("F", bound=Function)


def page(
    method: t.Literal["GET", "POST"],
    path: str,
    *,
    right: Right,
    operators: bool = False,
    stores: bool = True,
) -> t.Callable[[F], F]:
    """Register a page function.

    :param right: the right that the principal needs; there is no default, so that it cannot be forgotten.
    :param operators: only operators may see it.
    :param stores: the browser may store the answer.
    """

    def register(function: F) -> F:
        PAGES.append(Route(method, path, function, right, operators, stores))
        return function

    return register
