"""The API's own description: the OpenAPI document, and an HTML page without scripts made from it."""

from __future__ import annotations

import json
import typing as t
from itertools import groupby

from flask import render_template, request

from ..queries.bounds import fit, html_size
from . import schemas
from .catalog import after_of
from .operations import Answer, Call, operation
from .spec import document


@operation(
    "GET",
    "/openapi.json",
    "This description",
    right="read",
    query=schemas.CatalogQuery,
    mimetype="application/json",
)
def get_openapi(call: Call) -> t.Any:
    """OpenAPI 3.1, with the webhooks themselves. If there are more, send `x-next-after` as `after` to get them."""
    return Answer(None, raw=json.dumps(document(call.state, request.root_path, after_of(call))).encode())


@operation(
    "GET",
    "/docs",
    "This description as a page",
    right="read",
    query=schemas.CatalogQuery,
    mimetype="text/html",
)
def get_docs(call: Call) -> t.Any:
    """The same description in HTML, without scripts."""
    found = document(call.state, request.root_path, after_of(call), PAGE)
    operations = [
        {"method": method.upper(), "path": path, **each}
        for path, methods in found["paths"].items()
        for method, each in methods.items()
    ]
    page = render_template(
        "webhooks/api.html",
        spec=found,
        groups=[(tag, list(some)) for tag, some in groupby(operations, key=lambda each: each["tags"][0])],
        tags={tag["name"]: tag["description"] for tag in found["tags"]},
        schemas=found["components"]["schemas"],
        more=found.get("x-next-after"),
        written=_written,
        base=found["servers"][0]["url"],
    )
    return Answer(None, raw=page.encode(), mimetype="text/html")


@operation("GET", "/docs.css", "Style sheet of that page", right="read", mimetype="text/css")
def get_docs_style(call: Call) -> t.Any:
    """A file and no inline style, so that the page needs no exception from `style-src 'self'`."""
    return Answer(None, raw=_STYLE.encode(), mimetype="text/css")


def _written(example: t.Any) -> str:
    """Return an example as text, cut to `EXAMPLE` bytes: the JSON document has it whole, and many are of one event."""
    text = json.dumps(example, indent=2, ensure_ascii=False)
    found = fit(text, EXAMPLE, html_size)
    return found if found == text else f"{found} \u2026"


PAGE = 256 * 1024
"""Bytes of the document from which one HTML page is made: less than `spec.MOST`, because the HTML is longer."""
EXAMPLE = 8 * 1024
"""Bytes of one example on that page."""
_STYLE = """\
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 1rem 1.5rem 6rem; max-width: 60rem; }
code, pre { font: .875em/1.5 ui-monospace, monospace; }
pre { background: var(--soft); overflow: auto; padding: .75rem; border-radius: .4rem; }
details { border: 1px solid var(--line); border-radius: .4rem; margin: .5rem 0; padding: .25rem .75rem; }
summary { cursor: pointer; padding: .25rem 0; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .5rem; text-align: left; vertical-align: top; }
.method { display: inline-block; min-width: 4.5em; font-weight: 700; }
"""
