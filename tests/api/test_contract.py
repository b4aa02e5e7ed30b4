"""The OpenAPI document: valid, and kept by every route. Schemathesis makes the requests, right ones and wrong ones."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
import schemathesis
from flask import Flask, request
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from openapi_spec_validator import validate
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig

from flask_webhooks import Principal
from flask_webhooks.api.operations import OPERATIONS, Operation
from flask_webhooks.state import state_of
from tests.host import db, make_host

from .conftest import URL, Customer
from .test_who import possessions

TOKEN = "t0ken"
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
    folder: Path = tmp_path_factory.mktemp("contract")
    app = make_host(f"sqlite:///{folder / 'test.sqlite'}", folder, WEBHOOKS_SUBSCRIPTION_LIMIT=100_000)
    state = state_of(app)
    object.__setattr__(state, "load_principal", load_principal)
    yield app
    state.transport.close()
    with app.app_context():
        db.session.remove()
        db.engine.dispose()


@pytest.fixture(scope="module")
def contract(contract_app: Flask) -> t.Any:
    return schemathesis.openapi.from_wsgi(
        "/webhooks/api/openapi.json",
        contract_app,
        headers={"Authorization": f"Bearer {TOKEN}"},
        config=SchemathesisConfig.from_dict(CONFIG),
    )


def make_real(case: t.Any, mine: dict[str, str]) -> None:
    """Put what is there into a request that is made up, and leave out what only luck would make fit."""
    for name in case.path_parameters or {}:
        case.path_parameters[name] = mine[name]
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


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_every_route_keeps_the_contract(
    contract_app: Flask, contract: t.Any, operation: Operation, mode: GenerationMode
) -> None:
    described = contract[operation.openapi_path][operation.method]
    statuses: set[int] = set()
    customer = Customer(contract_app.test_client())
    customer.headers = {"Authorization": f"Bearer {TOKEN}"}
    mine = possessions(state_of(contract_app), customer)
    customer("POST", f"/deliveries/{mine['delivery_id']}/retry", expect=202)
    customer("POST", f"/replays/{mine['replay_id']}/cancel", expect=200)

    @settings(
        max_examples=25,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=described.as_strategy(generation_mode=mode))
    def try_out(case: t.Any) -> None:
        if mode is GenerationMode.POSITIVE:
            make_real(case, mine)
        answer = case.call_and_validate(headers={"Authorization": f"Bearer {TOKEN}"})
        statuses.add(answer.status_code)

    try:
        try_out()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE  # nothing can be wrong with a request that takes nothing
    if mode is GenerationMode.POSITIVE:
        assert statuses & {200, 201, 202, 204}, statuses


def test_the_document_is_valid_openapi(call: Customer) -> None:
    document = call("GET", "/openapi.json", expect=200)

    validate(document)
    assert document["openapi"].startswith("3.1")
    assert document["webhooks"]["invoices.paid"]["post"]["requestBody"]["content"]["application/json"][
        "examples"
    ]


def test_every_operation_tells_its_errors(call: Customer) -> None:
    document = call("GET", "/openapi.json", expect=200)

    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            told = set(operation["responses"])
            assert {"401", "403"} <= told, (method, path)
            assert ("404" in told) == ("{" in path), (method, path)
            if method != "get":
                assert {"400", "413", "415", "422"} <= told, (method, path)


def test_the_page_needs_no_script_and_no_other_site(call: Customer) -> None:
    call("GET", "/docs", expect=200)
    page = call.last.get_data(as_text=True)

    assert "<script" not in page
    assert "style=" not in page
    assert "http://" not in page.replace("http://127.0.0.1", "")
    for name in ("create_subscription", "replay_subscription", "event-invoices.paid"):
        assert f'id="{name}"' in page
    call("GET", "/docs.css", expect=200)
    assert call.last.mimetype == "text/css"
