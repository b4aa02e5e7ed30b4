"""The guide to the management API: its commands, answers and tables are those of the example app."""

from __future__ import annotations

import json
import re
import shlex
import typing as t
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient

from example_app.seed import demo_token
from flask_webhooks.api.operations import OPERATIONS
from flask_webhooks.state import state_of
from flask_webhooks.web import CODES

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "api.md").read_text()


def blocks() -> list[tuple[str, str]]:
    """Kind and text of every piece of code that stands alone."""
    return re.findall(r"^```(\w+)\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)


def curl(client: FlaskClient, command: str) -> t.Any:
    words = shlex.split(command.replace("\\\n", " "))
    assert words.pop(0) == "curl"
    method, headers, body, url = "GET", {}, None, ""
    while words:
        word = words.pop(0)
        if word == "-X":
            method = words.pop(0)
        elif word == "-H":
            name, _, value = words.pop(0).partition(": ")
            headers[name] = value
        elif word == "-d":
            body = words.pop(0)
        else:
            url = word
    where = urlsplit(url)
    return client.open(where.path, method=method, headers=headers, data=body, query_string=where.query)


def is_like(told: t.Any, found: t.Any) -> bool:
    """Whether an answer has what the page says; `…` stands for something."""
    if isinstance(told, dict):
        return all(name in found and is_like(value, found[name]) for name, value in told.items())
    if isinstance(told, list):
        return len(told) == len(found) and all(map(is_like, told, found))
    if isinstance(told, str) and told.endswith("…"):
        return isinstance(found, str) and found.startswith(told[:-1]) and len(found) > len(told)
    return bool(told == found)


def test_the_commands_work_and_answer_as_documented(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    state = state_of(app)
    state.transport._names._resolver = lambda *_, **__: []  # no test asks a name server
    client = app.test_client()
    values = {"$TOKEN": demo_token("ada@acme.example")}
    answers: list[t.Any] = []

    for kind, text in blocks():
        if kind == "sh":
            for command in text.strip().split("\n\n"):
                for name, value in values.items():
                    command = command.replace(name, value)
                assert "$" not in command
                answers.append(curl(client, command))
                if answers[-1].status_code == 201:
                    values["$ID"] = answers[-1].get_json()["id"]
        elif kind == "json":
            assert is_like(json.loads(text), answers[-1].get_json(force=True)), (text, answers[-1].data)

    refused = [answer.status_code for answer in answers if answer.status_code >= 300]
    assert refused == [422, 412]  # the two that the page shows
    assert len(answers) >= 8


def test_the_tables_tell_every_route() -> None:
    told: set[tuple[str, str]] = set()
    for cell in re.findall(r"^\| (`[A-Z].*?`) \|", PAGE, flags=re.MULTILINE):
        [path] = re.findall(r"(/[^`]*)`$", cell)
        told |= {(method, path) for method in re.findall(r"\b([A-Z]{3,6})\b", cell)}
    told |= set(re.findall(r"`(GET|POST) (/replays/[^`]*)`", PAGE))

    there = {(each.method, re.sub(r"<\w+>", "<id>", each.path)) for each in OPERATIONS}
    assert told <= there
    missing = {path for _, path in there - told}
    assert missing == {"/catalog", "/catalog/<id>", "/openapi.json", "/docs", "/docs.css"}


def test_the_table_of_errors_is_whole() -> None:
    page = (DOCS / "error-codes.md").read_text()
    told = {
        (int(status), code) for status, code in re.findall(r"^\| (\d{3}) \| `(\w+)` \|", page, re.MULTILINE)
    }

    assert told >= set(CODES.items())
    assert {status for status, _ in told} == set(CODES)
