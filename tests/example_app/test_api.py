"""The JSON API: the same five requests for every resource, only within the caller's own business."""

from __future__ import annotations

import pytest
from flask import Flask
from flask.testing import FlaskClient

from example_app.channels import RESOURCES
from example_app.models import db

from .bodies import MADE_BY_POST, body_of, change_of


@pytest.mark.parametrize("name", MADE_BY_POST)
def test_a_record_is_created_read_changed_and_deleted(acme: FlaskClient, name: str) -> None:
    body, change = body_of(acme, name), change_of(name)

    created = acme.post(f"/api/{name}", json=body)
    address = created.headers["Location"]
    changed = acme.patch(address, json=change)

    assert created.status_code == 201
    record = created.get_json()
    plain = {key: value for key, value in body.items() if key not in {"line_items", "payslips"}}
    assert record.items() >= plain.items()
    assert changed.get_json().items() >= change.items()
    assert changed.get_json()["updated_at"] > record["updated_at"] == record["created_at"]
    assert acme.get(address).get_json() == changed.get_json()
    assert acme.delete(address).status_code == 204
    assert acme.get(address).status_code == 404


@pytest.mark.parametrize("name", RESOURCES)
def test_get_returns_exactly_what_the_schema_dumps(app: Flask, acme: FlaskClient, name: str) -> None:
    listed = acme.get(f"/api/{name}").get_json()["items"][0]

    got = acme.get(f"/api/{name}/{listed['id']}").get_json()

    with app.app_context():
        record = db.session.get(RESOURCES[name].model, listed["id"])
        assert got == listed == app.json.loads(app.json.dumps(RESOURCES[name].schema().dump(record)))


@pytest.mark.parametrize("name", RESOURCES)
def test_another_business_sees_and_changes_nothing(acme: FlaskClient, globex: FlaskClient, name: str) -> None:
    mine = acme.get(f"/api/{name}").get_json()["items"]
    theirs = globex.get(f"/api/{name}").get_json()["items"]
    address = f"/api/{name}/{mine[0]['id']}"

    answers = [globex.get(address), globex.patch(address, json=change_of(name)), globex.delete(address)]

    assert {record["id"] for record in mine}.isdisjoint(record["id"] for record in theirs)
    refused = [404, 404, 404] if "DELETE" in RESOURCES[name].methods else [404, 404, 405]
    assert [answer.status_code for answer in answers] == refused
    assert acme.get(address).get_json() == mine[0]


@pytest.mark.parametrize("name", MADE_BY_POST)
def test_no_record_refers_to_another_business(acme: FlaskClient, globex: FlaskClient, name: str) -> None:
    body = body_of(acme, name)
    references = {field for field, value in body.items() if field.endswith("_id") and value is not None}

    answer = globex.post(f"/api/{name}", json=body)

    if references:
        assert answer.status_code == 422
        assert answer.get_json()["fields"].keys() >= references
    elif "line_items" in body or "payslips" in body:
        assert answer.status_code == 422
    else:
        assert answer.status_code == 201


@pytest.mark.parametrize("name", RESOURCES)
def test_requests_without_a_principal_are_refused_everywhere(app: Flask, name: str) -> None:
    client = app.test_client()

    answers = [client.get(f"/api/{name}"), client.post(f"/api/{name}", json={})]

    assert [answer.status_code for answer in answers] == [401, 401]


def test_pages_go_through_all_records(acme: FlaskClient) -> None:
    whole = acme.get("/api/invoices").get_json()

    pages = [acme.get(f"/api/invoices?per_page=2&page={page}").get_json() for page in (1, 2)]

    assert whole["total"] == 3
    assert [record for page in pages for record in page["items"]] == whole["items"]


def test_includes_are_added_on_request(acme: FlaskClient) -> None:
    plain = acme.get("/api/invoices/1").get_json()
    full = acme.get("/api/invoices/1?include=client,line_items").get_json()

    assert {*full} - {*plain} == {"client", "line_items"}
    assert full["client"] == acme.get(f"/api/clients/{plain['client_id']}").get_json()
    assert acme.get("/api/invoices/1?include=business").status_code == 422


def test_totals_are_worked_out_from_lines(acme: FlaskClient) -> None:
    body = body_of(acme, "invoices")
    lines = [
        {"description": "Chairs", "quantity": "3", "unit_price": "19.99", "tax_rate": "12.5"},
        {"description": "Table", "unit_price": "100"},
    ]

    invoice = acme.post("/api/invoices", json={**body, "line_items": lines}).get_json()
    fewer = acme.patch(f"/api/invoices/{invoice['id']}", json={"line_items": lines[1:]}).get_json()

    # 3 x 19.99 = 59.97, and 12.5 % of that is 7.49625
    assert (invoice["subtotal"], invoice["tax_total"], invoice["total"]) == ("159.97", "7.50", "167.47")
    assert fewer["total"] == "100.00"


def test_an_incomplete_line_is_refused_in_a_change_too(acme: FlaskClient) -> None:
    answer = acme.patch("/api/invoices/1", json={"line_items": [{"description": "No price"}]})

    assert answer.status_code == 422
    assert answer.get_json()["fields"]["line_items"]["0"] == {
        "unit_price": ["Missing data for required field."]
    }


def test_a_journal_must_balance(acme: FlaskClient) -> None:
    body = body_of(acme, "journals")
    body["line_items"][0]["debit"] = "1.00"

    answer = acme.post("/api/journals", json=body)

    assert answer.status_code == 422
    assert "must be equal" in answer.get_json()["fields"]["line_items"][0]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param({}, 422, id="missing"),
        pytest.param({"name": "A", "currency": "cedi"}, 422, id="invalid"),
        pytest.param({"name": "A", "currency": "GHS", "tag": "MINE"}, 422, id="read-only"),
        pytest.param([], 422, id="not an object"),
    ],
)
def test_bad_input_is_refused_with_fields(acme: FlaskClient, body: object, status: int) -> None:
    answer = acme.post("/api/clients", json=body)

    assert answer.status_code == status
    assert answer.get_json()["fields"]


def test_broken_json_is_a_bad_request(acme: FlaskClient) -> None:
    answer = acme.post("/api/clients", data="{", content_type="application/json")

    assert (answer.status_code, answer.get_json()["error"]) == (400, "bad_request")


def test_what_is_referred_to_cannot_be_deleted(acme: FlaskClient) -> None:
    client_id = acme.get("/api/invoices/1").get_json()["client_id"]

    answer = acme.delete(f"/api/clients/{client_id}")

    assert (answer.status_code, answer.get_json()["error"]) == (409, "conflict")
    assert acme.get(f"/api/clients/{client_id}").status_code == 200


def test_a_business_can_be_changed_but_not_made_or_deleted(acme: FlaskClient) -> None:
    answers = [acme.post("/api/business", json={}), acme.delete("/api/business/1")]

    assert [(answer.status_code, answer.headers["Allow"]) for answer in answers] == [(405, "GET, PATCH")] * 2


def test_an_unknown_address_is_answered_in_json(acme: FlaskClient) -> None:
    answers = [acme.get("/api/nonsense"), acme.get("/api/invoices/one")]

    assert [(answer.status_code, answer.get_json()["error"]) for answer in answers] == [
        (404, "not_found")
    ] * 2
