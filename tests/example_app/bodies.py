"""Request bodies for each resource, made from a seeded record so that their references exist."""

from __future__ import annotations

import typing as t

from flask.testing import FlaskClient

from example_app.channels import RESOURCES

MADE_BY_POST = [name for name, resource in RESOURCES.items() if "POST" in resource.methods]

# One harmless change for each resource: a field that it has, and a value the seed does not use.
CHANGES: dict[str, dict[str, t.Any]] = {
    "business": {"phone": "+233 1"},
    "clients": {"phone": "+233 1"},
    "suppliers": {"payment_terms_days": 14},
    "employees": {"job_title": "Clerk"},
    "products_services": {"sales_price": "95.50"},
    "wallet_transactions": {"reference": "changed"},
    "accounts": {"description": "changed"},
    "journals": {"narration": "changed"},
    "ledgers": {"source": "changed"},
    "invoice_online_payments": {"fee": "0.45"},
    "bill_online_payments": {"fee": "0.45"},
}


def change_of(name: str) -> dict[str, t.Any]:
    return CHANGES.get(name, {"notes": "changed"})


def body_of(client: FlaskClient, name: str) -> dict[str, t.Any]:
    """Return what makes a record like the oldest one: only what may be given, lines included."""
    schema = RESOURCES[name].schema()
    lines = [field for field in ("line_items", "payslips") if field in schema.load_fields]
    listed = client.get(f"/api/{name}", query_string={"include": ",".join(lines)}).get_json()
    return given(schema, listed["items"][-1])


def given(schema: t.Any, record: dict[str, t.Any]) -> dict[str, t.Any]:
    body = {field: value for field, value in record.items() if field in schema.load_fields}
    for field in {"line_items", "payslips"} & body.keys():
        line = schema.load_fields[field].inner.schema
        body[field] = [{key: each[key] for key in each if key in line.load_fields} for each in body[field]]
    return body
