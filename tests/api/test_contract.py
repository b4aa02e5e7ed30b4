"""The OpenAPI document is valid, and every route keeps to it: Schemathesis sends valid and invalid requests."""

from __future__ import annotations

import json
import re
import typing as t

import jsonschema
import pytest
import schemathesis
from flask import Flask, request
from hypothesis import assume, given
from hypothesis.errors import Unsatisfiable
from openapi_spec_validator import validate
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig

from flask_webhooks import Principal
from flask_webhooks.api.operations import OPERATIONS, Operation
from flask_webhooks.state import state_of

from .conftest import URL, Customer, lasting, quick
from .test_rights import filled, possessions

TOKEN = "t0ken"
EXAMPLES, WALKS = 10, 12
"""How much is tried: enough to see a broken route, and few enough for every run of the tests."""
SIGNED = {"Authorization": f"Bearer {TOKEN}"}
CONFIG = {
    "checks": {
        # What the document allows may still be refused: an address that the guard does not let through, an include that
        # a channel has not, channels that exclude each other, a record that is not there, a version that has passed.
        "positive_data_acceptance": {"expected-statuses": ["2xx", 400, 403, 404, 409, 412, 422]},
        "negative_data_rejection": {"expected-statuses": [400, 401, 403, 404, 405, 409, 412, 415, 422]},
    },
    "phases": {"stateful": {"enabled": False}},
}


def load_principal() -> Principal | None:
    if request.headers.get("Authorization") != f"Bearer {TOKEN}":
        return None
    return Principal("1", frozenset({"read", "write", "secrets"}))


@pytest.fixture(scope="module")
def contract_app(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Flask]:
    with lasting(tmp_path_factory.mktemp("contract")) as app:
        object.__setattr__(state_of(app), "load_principal", load_principal)
        yield app


def described(app: Flask, **more: t.Any) -> t.Any:
    """The document, as requests are made up from it."""
    config = SchemathesisConfig.from_dict({**CONFIG, **more})
    return schemathesis.openapi.from_wsgi("/webhooks/api/openapi.json", app, headers=SIGNED, config=config)


@pytest.fixture(scope="module")
def contract(contract_app: Flask) -> t.Any:
    return described(contract_app)


@pytest.fixture(scope="module")
def stateful(contract_app: Flask) -> t.Any:
    """The same, following links."""
    return described(contract_app, phases={"stateful": {"enabled": True, "generation": {"mode": "positive"}}})


def make_real(case: t.Any, mine: dict[str, str]) -> None:
    """Put existing ids into a generated request, and leave out values that would match only by luck."""
    for name in case.path_parameters or {}:
        case.path_parameters[name] = mine.get(name, case.path_parameters[name])
    for unlikely in ("If-Match", "If-None-Match"):
        (case.headers or {}).pop(unlikely, None)
    for name in ("owner", "cursor"):
        (case.query or {}).pop(name, None)
    if isinstance(case.body, dict):
        for name in ("owner", "secret", "headers", "format", "held", "environment", "entity_id"):
            case.body.pop(name, None)
        for name in ("url", "to_url"):
            if name in case.body:
                case.body[name] = URL


def test_walks_along_the_links_keep_the_contract(contract_app: Flask, stateful: t.Any) -> None:
    customer = Customer(contract_app.test_client())
    customer.headers = SIGNED
    possessions(state_of(contract_app), customer)
    reached: set[str] = set()

    class Walk(stateful.as_state_machine()):  # type: ignore[misc]
        def before_call(self, case: t.Any) -> None:
            make_real(case, {})

        def get_call_kwargs(self, case: t.Any) -> dict[str, t.Any]:
            return {"headers": SIGNED}

        def validate_response(self, response: t.Any, case: t.Any, *_: t.Any, **__: t.Any) -> None:
            case.validate_response(response, headers=SIGNED)  # so that schemathesis knows the right password

        def step(self, input: t.Any) -> t.Any:
            output = super().step(input)
            if input.transition is not None and output.response.status_code < 300:
                reached.add(input.case.operation.definition.raw["operationId"])
            return output

    Walk.run(settings=quick(WALKS, stateful_step_count=10))

    assert len(reached) >= 3, reached  # by ids from earlier answers; which ones is random


def test_links_lead_to_every_object(document: t.Any) -> None:
    led = {
        link["operationId"]
        for methods in document["paths"].values()
        for described in methods.values()
        for answer in described["responses"].values()
        for link in answer.get("links", {}).values()
    }

    assert led >= {operation.name for operation in OPERATIONS if operation.arguments}
    assert led <= {operation.name for operation in OPERATIONS}


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_every_route_keeps_the_contract(
    contract_app: Flask, contract: t.Any, operation: Operation, mode: GenerationMode
) -> None:
    described = contract[operation.openapi_path][operation.method]
    statuses: set[int] = set()
    customer = Customer(contract_app.test_client())
    customer.headers = SIGNED
    mine = possessions(state_of(contract_app), customer)
    customer("POST", f"/deliveries/{mine['delivery_id']}/retry", expect=202)
    customer("POST", f"/replays/{mine['replay_id']}/cancel", expect=200)

    @quick(EXAMPLES)
    @given(case=described.as_strategy(generation_mode=mode))
    def try_out(case: t.Any) -> None:
        if mode is GenerationMode.POSITIVE:
            make_real(case, mine)
        else:  # what is sent as nothing is nothing wrong
            assume(all(value not in ([], {}, None) for value in (case.query or {}).values()))
        answer = case.call_and_validate(headers=SIGNED)
        statuses.add(answer.status_code)

    try:
        try_out()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE  # nothing can be wrong with a request that takes nothing
    if mode is GenerationMode.POSITIVE:
        assert statuses & {200, 201, 202, 204}, statuses


def test_the_document_is_valid_openapi(document: t.Any) -> None:

    validate(document)
    assert document["openapi"].startswith("3.1")
    assert document["webhooks"]["invoices.paid"]["post"]["requestBody"]["content"]["application/json"][
        "examples"
    ]


def test_every_operation_documents_its_errors(document: t.Any) -> None:

    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            statuses = set(operation["responses"])
            assert {"401", "403", "422", "500"} <= statuses, (method, path)
            assert ("404" in statuses) == ("{" in path), (method, path)
            if method != "get":
                assert {"400", "413", "415", "422"} <= statuses, (method, path)


def fits(document: t.Any, schema: t.Any, value: t.Any) -> None:
    whole = {**schema, "components": document["components"]}
    checker = jsonschema.Draft202012Validator(whole, format_checker=jsonschema.FormatChecker())
    checker.validate(value)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_every_operation_has_examples_that_fit(document: t.Any, operation: Operation) -> None:
    described = document["paths"][operation.openapi_path][operation.method.lower()]
    media = [body["content"]["application/json"] for body in [described.get("requestBody")] if body]
    for status, answer in described["responses"].items():
        assert status[0] != "2" or status == "204" or answer["content"]
        media += answer.get("content", {}).values()

    for each in media:
        assert "example" in each
        fits(document, each["schema"], each["example"])
    for each in described["parameters"]:
        assert each.get("description") or each["in"] == "path" or each["schema"].get("enum"), each
        if "example" in each or "example" in each["schema"]:
            fits(document, each["schema"], each.get("example", each["schema"].get("example")))
    [tag] = described["tags"]
    assert [each["description"] for each in document["tags"] if each["name"] == tag]


def test_examples_hold_no_secret(document: t.Any) -> None:
    for found in re.findall(r"whsec_.", json.dumps(document, ensure_ascii=False)):
        assert found[-1] in "…`"


def test_examples_of_requests_work(strict: Flask) -> None:
    call = Customer(strict.test_client())
    document = call("GET", "/openapi.json", expect=200)
    mine = possessions(state_of(strict), call, url="https://example.com/hooks")
    tried = 0

    for operation in OPERATIONS:
        described = document["paths"][operation.openapi_path][operation.method.lower()]
        if operation.body is not None:
            example = described["requestBody"]["content"]["application/json"]["example"]
            if operation.name == "replay_subscription":
                call("POST", f"/replays/{mine['replay_id']}/cancel", expect=200)
            call(operation.method, filled(operation.path, mine), example, expect=operation.status)
            tried += 1

    assert tried >= 5


def test_the_page_needs_no_script_and_no_other_site(shared: Customer) -> None:
    shared("GET", "/docs", expect=200)
    page = shared.last.get_data(as_text=True)

    assert "<script" not in page
    assert "<style" not in page
    assert not re.search(r"<[^>]+\s(?:style|on\w+)=", page)
    for target in re.findall(r'\s(?:src|href|action)="([^"]*)"', page):
        assert target.startswith(("/webhooks/api/", "#")), target
    assert "http://" not in page.replace("http://127.0.0.1", "")
    for name in ("create_subscription", "replay_subscription", "event-invoices.paid"):
        assert f'id="{name}"' in page
    shared("GET", "/docs.css", expect=200)
    assert shared.last.mimetype == "text/css"
