"""`flask webhooks catalog`: a table, JSON, a page for customers, OpenAPI."""

from __future__ import annotations

import json
import re
import typing as t
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner
from flask import Flask
from flask.cli import ScriptInfo
from markdown_it import MarkdownIt
from openapi_spec_validator import OpenAPIV31SpecValidator

from flask_webhooks.cli import webhooks_cli
from flask_webhooks.state import state_of
from tests.systems.conftest import System, make_system

__all__ = ["make_system"]

SYSTEMS = ["invoicing", "lending", "banking", "procurement"]
DATABASE = pytest.mark.parametrize("empty_database_url", ["sqlite"], indirect=True)
pytestmark = DATABASE


@pytest.fixture(params=["accounting", *SYSTEMS])
def app(request: pytest.FixtureRequest, make_system: t.Callable[..., System]) -> Flask:
    """Each of the five systems."""
    if request.param != "accounting":
        return make_system(request.param).app
    from example_app import create_app

    return create_app({"SQLALCHEMY_DATABASE_URI": "sqlite://"})


def catalog(app: Flask, *words: str) -> str:
    result = CliRunner().invoke(webhooks_cli, ["catalog", *words], obj=ScriptInfo(create_app=lambda: app))
    assert result.exit_code == 0, result.output
    return result.output


def test_the_table_has_every_event(app: Flask) -> None:
    known = state_of(app).catalog
    head, *lines = catalog(app).splitlines()
    cells = [re.split(r"  +", line) for line in lines[: len(known.events)]]

    assert re.split(r"  +", head) == ["EVENT", "HAPPENS", "FORMATS", "INCLUDES"]
    assert [row[0] for row in cells] == list(known.events)
    assert lines[-1].startswith(f"{len(known.events)} events in ")


def test_the_table_says_when_and_in_which_formats(make_system: t.Callable[..., System]) -> None:
    lines = catalog(make_system("lending").app).splitlines()
    row = next(line for line in lines if line.startswith("Invoice.SUBMITTED"))

    assert re.split(r"  +", row) == ["Invoice.SUBMITTED", "created or updated (status)", "entity, slack", "-"]


def test_json_has_every_event(app: Flask) -> None:
    shown = json.loads(catalog(app, "--json"))

    names = [event["name"] for channel in shown["channels"] for event in channel["events"]]
    assert names == list(state_of(app).catalog.events)


def test_the_page_has_a_body_for_every_event_in_every_format(app: Flask) -> None:
    page = catalog(app, "--markdown")
    tokens = MarkdownIt("commonmark").parse(page)
    found: dict[str, list[t.Any]] = {}
    for at, token in enumerate(tokens):
        if token.type == "heading_open" and token.tag == "h3":
            found[tokens[at + 1].content] = []
        elif token.type == "fence":
            found[list(found)[-1]].append(json.loads(token.content))

    events = state_of(app).catalog.events
    assert list(found) == list(events)
    assert {name: len(bodies) for name, bodies in found.items()} == {
        name: len(event.formats) for name, event in events.items()
    }


def test_every_link_of_the_page_leads_to_a_heading(app: Flask) -> None:
    page = catalog(app, "--markdown")
    links = re.findall(r"\]\(#([^)]+)\)", page)
    # As GitHub makes them: lower case, without punctuation.
    anchors = {re.sub(r"[^\w-]", "", heading.lower()) for heading in re.findall(r"^### (.*)$", page, re.M)}

    assert links
    assert set(links) <= anchors


def test_the_page_says_what_is_not_sent_again(make_system: t.Callable[..., System]) -> None:
    assert "the event is not sent again" in catalog(make_system("banking").app, "--markdown")


def test_openapi_is_valid(app: Flask) -> None:
    document = json.loads(catalog(app, "--openapi"))

    OpenAPIV31SpecValidator(document).validate()
    assert document["openapi"] == "3.1.0"
    assert list(document["webhooks"]) == list(state_of(app).catalog.events)


def test_the_examples_of_openapi_fit_its_schemas(app: Flask) -> None:
    document = json.loads(catalog(app, "--openapi"))
    count = 0
    for webhook in document["webhooks"].values():
        content = webhook["post"]["requestBody"]["content"]["application/json"]
        validator = jsonschema.Draft202012Validator(content["schema"])
        for example in content["examples"].values():
            validator.validate(example["value"])
            count += 1

    assert count == sum(len(event.formats) for event in state_of(app).catalog.events.values())


def test_the_schemas_say_what_the_marshmallow_schemas_say(make_system: t.Callable[..., System]) -> None:
    document = json.loads(catalog(make_system("lending").app, "--openapi"))
    schema = document["webhooks"]["Invoice.SUBMITTED"]["post"]["requestBody"]["content"]["application/json"][
        "schema"
    ]
    entity = next(shape for shape in schema["anyOf"] if shape["title"] == "entity")
    properties = entity["properties"]["entity_state"]["properties"]

    assert properties["id"] == {"type": "integer"}
    assert properties["amount"] == {"type": "string", "format": "decimal"}
    assert properties["due_on"] == {"type": ["string", "null"], "format": "date"}
    assert properties["status"]["enum"][:2] == ["DRAFT", "SUBMITTED"]
    assert list(properties["seller"]["properties"]) == ["id", "name", "status"]
    assert "entity_state" in entity["required"]


def test_the_schemas_know_the_includes(make_system: t.Callable[..., System]) -> None:
    document = json.loads(catalog(make_system("invoicing").app, "--openapi"))
    content = document["webhooks"]["invoice.updated"]["post"]["requestBody"]["content"]
    data = content["application/json"]["schema"]["properties"]["data"]

    assert {"bank_account", "invoice_user", "invoice_prefix", "line_items", "changes"} <= data[
        "properties"
    ].keys()
    assert list(data["properties"]["line_items"]["items"]["properties"]) == [
        "id",
        "description",
        "quantity",
        "price",
    ]
    assert not {"line_items", "changes"} & set(data.get("required", ()))


def test_an_event_shows_the_state_it_leads_to(make_system: t.Callable[..., System]) -> None:
    document = json.loads(catalog(make_system("procurement").app, "--openapi"))
    examples = document["webhooks"]["milestone.approved"]["post"]["requestBody"]["content"][
        "application/json"
    ]

    assert examples["examples"]["standard"]["value"]["data"]["status"] == "approved"


def test_a_deprecated_event_says_so(tmp_path: Path, empty_database_url: str) -> None:
    from tests.host import db, make_host

    path = tmp_path / "x.yaml"
    path.write_text(
        "version: 1\nchannels:\n  jobs:\n    events:\n      done:\n      finished:\n"
        "        deprecated: {reason: Says the same., replacement: jobs.done}\n"
    )
    app = make_host(empty_database_url, tmp_path, WEBHOOKS_CATALOG=str(path))

    assert "**Deprecated:** Says the same. Use [`jobs.done`](#jobsdone)." in catalog(app, "--markdown")
    assert json.loads(catalog(app, "--openapi"))["webhooks"]["jobs.finished"]["post"]["deprecated"] is True
    assert "emitted, deprecated" in catalog(app)
    with app.app_context():
        db.engine.dispose()
