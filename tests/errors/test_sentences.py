"""Errors: a code for programs, values by name, one English sentence per code, and its translations."""

from __future__ import annotations

import ast
import copy
import inspect
import pickle
import re
import typing as t
from pathlib import Path

import pytest

import flask_webhooks
from flask_webhooks import errors
from flask_webhooks.api.problems import of_error
from flask_webhooks.api.schemas.problems import PROBLEM_CODES
from flask_webhooks.errors import (
    SENTENCES,
    ErrorText,
    SubscriptionError,
    ThrottledError,
    UnknownEventError,
    WebhooksError,
)
from flask_webhooks.web import CODES
from tests import error_codes

PACKAGE = Path(flask_webhooks.__file__).parent


def names_in(text: str) -> set[str]:
    """Return the parameters that a text has a place for."""
    return set(re.findall(r"%\((\w+)\)s", text))


def calls() -> t.Iterator[tuple[str, ast.Call]]:
    """Yield every place where a sentence is made."""
    for path in PACKAGE.rglob("*.py"):
        if path == PACKAGE / "errors" / "text.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "ErrorText":
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}", node


def code_of(call: ast.Call) -> str:
    """Return the code, which is written where the sentence is made, so that one can look for it."""
    [code] = call.args
    assert isinstance(code, ast.Constant), ast.unparse(call)
    return str(code.value)


MADE = list(calls())


def test_a_sentence_is_made_with_the_parameters_that_it_names() -> None:
    wrong = [
        place
        for place, call in MADE
        if {each.arg for each in call.keywords} != names_in(SENTENCES[code_of(call)].english)
    ]

    assert wrong == []


def test_every_sentence_is_said_somewhere() -> None:
    said = {code_of(call) for _place, call in MADE}

    assert said == set(SENTENCES)


CUSTOMERS = {
    each.__name__
    for each in vars(errors).values()
    if inspect.isclass(each) and issubclass(each, SubscriptionError | ThrottledError)
}


def test_what_a_customer_reads_is_no_text_without_a_code() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if any(
            isinstance(each, ast.JoinedStr) or (isinstance(each, ast.Constant) and each.value)
            for each in said_to_customers(node)
        )
    ]

    assert wrong == []


def said_to_customers(node: ast.AST) -> list[ast.expr]:
    """Return what an error or the list of a field's mistakes is given to say."""
    match node:
        case ast.Call(ast.Name(name), [message, *_]) if name in CUSTOMERS - {"OtherEnvironmentError"}:
            return [message]
        case ast.Call(ast.Attribute(ast.Name("faults" | "mistakes"), "add"), [_, *messages]):
            return messages
    return []


@pytest.mark.parametrize("code", SENTENCES)
def test_a_sentence_says_what_happened_and_the_table_what_to_do(code: str) -> None:
    english, remedy = SENTENCES[code]

    assert re.fullmatch(r"[a-z][a-z0-9_]*", code)
    assert not re.sub(r"%\(\w+\)s", "", english).count("%")
    assert english.endswith((".", "?", "%(reason)s"))
    assert remedy.endswith(".")


def test_a_sentence_is_text_with_a_code() -> None:
    text = ErrorText("too_many_headers", count=30, most=20)

    assert text == "There are 30 headers; at most 20 are allowed."
    assert (text.code, text.params) == ("too_many_headers", {"count": 30, "most": 20})


def test_a_sentence_without_its_values_is_not_made() -> None:
    with pytest.raises(KeyError, match="most"):
        ErrorText("too_many_headers", count=30)


@pytest.mark.parametrize("carry", [lambda each: pickle.loads(pickle.dumps(each)), copy.deepcopy])
def test_an_error_keeps_code_and_values_on_its_way_to_another_process(carry: t.Any) -> None:
    text = ErrorText("url_too_long", most=2048)

    found = carry(SubscriptionError(text, {"url": [text]}))

    assert (str(found), found.code, found.params) == (text, "invalid", {"most": 2048})
    assert found.fields["url"][0].code == "url_too_long"


@pytest.mark.parametrize(
    "error",
    [
        errors.CatalogError([errors.Problem("a.yaml", 1, "channels", "is text.", "Write a mapping.")]),
        errors.AddressRefusedError("No.", host="db.internal", address=None, rule="internal name"),
        errors.OtherEnvironmentError("production"),
        errors.UnfitTextError(),
        ThrottledError(ErrorText("still_testing"), 4.5),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_whose_class_takes_other_arguments_can_be_pickled(error: WebhooksError) -> None:
    found = pickle.loads(pickle.dumps(error))

    assert (type(found), str(found), vars(found)) == (type(error), str(error), vars(error))


def test_every_class_has_a_code() -> None:
    found = [
        each for each in vars(errors).values() if inspect.isclass(each) and issubclass(each, WebhooksError)
    ]

    assert [each.__name__ for each in found if not each.code] == []
    own = [each.code for each in found if "code" in vars(each)]
    assert sorted(own) == sorted(set(own))


def test_a_message_of_the_hosts_own_has_no_values() -> None:
    error = SubscriptionError("Not on Sundays.", {"url": ["Not on Sundays."]})

    assert (str(error), error.params, error.fields) == ("Not on Sundays.", {}, {"url": ["Not on Sundays."]})
    assert SubscriptionError("").params == {}


def test_an_error_has_the_values_that_it_was_given() -> None:
    error = UnknownEventError("'invoices.payed' is not an event of the catalogue.", event="invoices.payed")

    assert (str(error).partition(" ")[0], error.code, error.params) == (
        "'invoices.payed'",
        "unknown_event",
        {"event": "invoices.payed"},
    )
    assert pickle.loads(pickle.dumps(error)).params == {"event": "invoices.payed"}
    assert ThrottledError(ErrorText("still_testing"), 4.5).params == {"wait": 4.5}


ANSWERED: list[tuple[WebhooksError, int]] = [
    (errors.SubscriptionError(""), 422),
    (errors.ExclusivityError(""), 409),
    (errors.OtherEnvironmentError("live"), 409),
    (errors.UnfitTextError(), 422),
    (errors.SubscriptionMissingError(""), 404),
    (errors.SubscriptionChangedError(""), 412),
    (errors.ThrottledError("", 1.0), 429),
    (errors.SecretError(""), 500),
]
"""Errors that the API answers for, with the status."""


def test_every_code_of_an_answer_is_described_and_no_other() -> None:
    raised = {(status, code) for room in ("api", "web") for status, code in refused_in(PACKAGE / room)}
    described = {(each.status, code) for code, each in PROBLEM_CODES.items()}

    ours = {(status, error.code) for error, status in ANSWERED}
    assert raised | ours | set(CODES.items()) == described


def refused_in(room: Path) -> t.Iterator[tuple[int, str]]:
    """Yield status and code of each `Refused` with a code of its own."""
    for path in room.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(ast.Name("Refused"), [ast.Constant(int(status)), *_], keywords):
                    yield from ((status, code) for code in codes_in(keywords))


def codes_in(keywords: list[ast.keyword]) -> t.Iterator[str]:
    """Yield the codes that are written out; that of an error's class is looked at by the next test."""
    for each in keywords:
        match each:
            case ast.keyword("code", ast.Constant(str(code))):
                yield code


@pytest.mark.parametrize(("error", "status"), ANSWERED, ids=[type(each).__name__ for each, _ in ANSWERED])
def test_an_error_is_answered_with_the_code_of_its_class(error: WebhooksError, status: int) -> None:
    problem = of_error(error)

    assert (problem.status, problem.code) == (status, error.code)
    assert PROBLEM_CODES[error.code].status == status


def test_the_page_of_codes_is_what_the_tables_say() -> None:
    assert error_codes.PAGE.read_text() == error_codes.page(), "Run `python -m tests.error_codes`."
