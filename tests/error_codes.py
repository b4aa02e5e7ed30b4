"""`python -m tests.error_codes` writes `docs/error-codes.md`, the page of all error codes."""

from __future__ import annotations

import inspect
import re
import typing as t
from pathlib import Path

from flask_webhooks import errors
from flask_webhooks.api.schemas.problems import PROBLEM_CODES
from flask_webhooks.errors import SENTENCES, WebhooksError

PAGE = Path(__file__).resolve().parent.parent / "docs" / "error-codes.md"

HEAD = """\
# Error codes

Every code, and what to do about it. Written from the package's own tables by `python -m tests.error_codes`.

## Answers of the API

`code` of a problem. What your own app aborts with below `/api`, and has no code here, has the name of its status.

"""
MISTAKES = """
## Mistakes

The API says in sentences what is wrong. In Python such a sentence is an `ErrorText`: text with a `code`, by which the
console translates it, and `params`, the values in it.

```python
try:
    webhooks.subscriptions.create(owner="42", url=url, events=["invoices.*"])
except SubscriptionError as error:
    for text in error.fields.get("url", []):
        if isinstance(text, ErrorText):
            print(text.code, text.params)  # such as url_low_port {'port': 22}
```

A code keeps its meaning; the wording of its sentence may be improved. What the API says of a request before it looks at
a subscription (`Not a valid string.`) has no code but `invalid`.

"""
EXCEPTIONS = """
## Exceptions

`error.code` of each class; `error.params` has the values that its message names.

"""


def page() -> str:
    """Return the whole page."""
    answers = [(f"{each.status}", f"`{code}`", each.remedy) for code, each in PROBLEM_CODES.items()]
    mistakes = [(f"`{code}`", shape(each.english), each.remedy) for code, each in SENTENCES.items()]
    exceptions = [(f"`{each.__name__}`", f"`{each.code}`", said_of(each)) for each in classes()]
    return (
        HEAD
        + table(("status", "code", "what to do"), answers)
        + MISTAKES
        + table(("code", "what it says", "what to do"), mistakes)
        + EXCEPTIONS
        + table(("class", "code", "when"), exceptions)
    )


def shape(english: str) -> str:
    """Return a sentence with its parameters as a reader knows them: `{most}`."""
    return re.sub(r"%\((\w+)\)s", r"`{\1}`", english)


def classes() -> list[type[WebhooksError]]:
    """Return the classes of errors in the order of the tree."""
    found = [
        each for each in vars(errors).values() if inspect.isclass(each) and issubclass(each, WebhooksError)
    ]
    return sorted(found, key=lambda each: inspect.getsourcelines(each)[1])


def said_of(kind: type[WebhooksError]) -> str:
    """Return the first sentence of a class."""
    return (kind.__doc__ or "").partition("\n\n")[0].replace("\n    ", " ")


def table(head: tuple[str, ...], rows: t.Iterable[tuple[str, ...]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in lines)


if __name__ == "__main__":
    PAGE.write_text(page())
