"""Emitted data passes through the schema of its event, like a row."""

from __future__ import annotations

import dataclasses
import datetime
import json
import typing as t
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import marshmallow as ma
import pytest
from flask import Flask

from flask_webhooks import Webhooks, payload
from flask_webhooks.bindings.emitted import Given
from flask_webhooks.errors import PayloadError
from flask_webhooks.state import AppState, state_of
from tests.capture.conftest import NOWHERE, recorded_data
from tests.host import Line, Status, db
from tests.stage import recorded, subscribe

mf = ma.fields
HERE = __name__


class PartSchema(ma.Schema):
    """Nested in an order."""

    sku = mf.String(required=True)
    count = mf.Integer(data_key="n")


class OrderSchema(ma.Schema):
    """What receivers were promised."""

    id = mf.Integer()
    placedAt = mf.DateTime(attribute="placed_at")
    total = mf.Decimal(as_string=True, places=2)
    currency = mf.String(dump_default="EUR")
    customer = mf.String(required=True)
    parts = mf.List(mf.Nested(PartSchema))
    main = mf.Nested(PartSchema)
    more = mf.Nested(PartSchema, many=True)
    tags = mf.List(mf.String())
    password = mf.String(load_only=True)
    double = mf.Function(lambda order: order["count"] * 2 if "count" in order else None)
    city = mf.String(attribute="address.city")


class MaskedSchema(ma.Schema):
    """Its hooks change what they are given."""

    iban = mf.String()

    @ma.pre_dump
    def mask(self, data: dict[str, t.Any], **_: t.Any) -> dict[str, t.Any]:
        data["iban"] = "***" + data["iban"][-2:]
        return data


CATALOG = f"""\
version: 1
defaults: {{owner: owner}}
channels:
  orders: {{schema: {HERE}:OrderSchema, events: [placed]}}
  masked: {{schema: {HERE}:MaskedSchema, events: [seen]}}
  invoices: {{model: tests.host:Invoice, schema: tests.host:InvoiceSchema, events: [created]}}
  plain: {{model: tests.host:Invoice, events: [created]}}
  lines: {{model: tests.host:Line, owner: invoice.owner, events: [created]}}
  free: {{events: [said]}}
"""

WHOLE: dict[str, t.Any] = {
    "id": 1,
    "placed_at": datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC),
    "total": Decimal("1.5"),
    "customer": "Ada",
    "parts": [{"sku": "a", "count": 2}],
    "main": {"sku": "b"},
    "more": [],
    "tags": ["x"],
    "password": "hunter2",
    "count": 4,
    "address": {"city": "Rome", "street": "hidden"},
}


@pytest.fixture
def state(make_app: t.Callable[..., Flask], tmp_path: Path) -> t.Iterator[AppState]:
    """The host with the catalogue of this file, and a subscription to everything."""
    (tmp_path / "given.yaml").write_text(CATALOG)
    app = make_app(WEBHOOKS_CATALOG=str(tmp_path / "given.yaml"))
    with app.app_context():
        state = state_of(app)
        subscribe(state, NOWHERE, "*")
        yield state


hooks = Webhooks()


def emitted(state: AppState, event: str, data: t.Any) -> dict[str, t.Any]:
    """What a receiver gets of emitted data."""
    hooks.emit(event, data, owner="1")
    db.session.commit()
    return recorded_data(state, event)[-1]


def test_a_dict_is_dumped_as_an_object_with_its_values(state: AppState) -> None:
    assert emitted(state, "orders.placed", WHOLE) == {
        "id": 1,
        "placedAt": "2026-03-01T00:00:00+00:00",
        "total": "1.50",
        "currency": "EUR",
        "customer": "Ada",
        "parts": [{"sku": "a", "n": 2}],
        "main": {"sku": "b"},
        "more": [],
        "tags": ["x"],
        "double": 8,
        "city": "Rome",
    }
    assert recorded(state)[-1].entity_id == "1"


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        (
            mf.List(mf.List(mf.Nested(PartSchema))),
            [[{"sku": "a"}], []],
            [[{"sku": "a"}, {"sku": "b", "price": 1}]],
        ),
        (mf.Dict(values=mf.Nested(PartSchema)), {"k": {"sku": "a"}}, {"k": {"sku": "a", "price": 1}}),
        (mf.Tuple((mf.Integer(), mf.Nested(PartSchema))), [1, {"sku": "a"}], (1, {"sku": "a", "price": 1})),
        (mf.List(mf.Dict(values=mf.Nested(PartSchema))), [{"k": {"sku": "a"}}, None], [{"k": {"price": 1}}]),
    ],
    ids=["lists", "values", "tuple", "both"],
)
def test_nested_schemas_are_looked_at_wherever_they_stand(field: t.Any, good: t.Any, bad: t.Any) -> None:
    given = Given(ma.Schema.from_dict({"x": field})(), None)

    assert json.loads(payload.encode(given({"x": good}))) == {"x": good}
    with pytest.raises(PayloadError, match="'price', which PartSchema does not know"):
        given({"x": bad})


def test_other_mappings_and_objects_are_too(state: AppState) -> None:
    @dataclasses.dataclass
    class Order:
        id: int
        customer: str
        secret: str = "hidden"

        def __contains__(self, name: str) -> bool:
            return False

    for order in (MappingProxyType({"id": 1, "customer": "Ada"}), Order(1, "Ada")):
        found = emitted(state, "orders.placed", order)
        assert (found["id"], found["customer"], found["currency"]) == (1, "Ada", "EUR")
        assert "secret" not in found


def test_what_is_not_given_is_left_out(state: AppState) -> None:
    assert emitted(state, "invoices.created", {"id": 1, "status": Status.PAID}) == {"id": 1, "status": "paid"}


def test_the_dict_that_was_passed_stays_as_it_is(state: AppState) -> None:
    data = {"iban": "DE0212"}

    assert emitted(state, "masked.seen", data) == {"iban": "***12"}
    assert data == {"iban": "DE0212"}


def test_columns_stand_for_a_channel_without_a_schema(state: AppState) -> None:
    data = {"id": 1, "total": 5, "status": "PAID", "extra": {"a": [1]}, "note": None}

    assert emitted(state, "plain.created", data) == {**data, "total": "5", "status": "paid"}


def test_without_schema_and_model_anything_goes(state: AppState) -> None:
    for data in ([1, 2], "text", {"a": {"b": 1}}, None):
        assert emitted(state, "free.said", data) == data


@pytest.mark.parametrize(
    ("event", "data", "said"),
    [
        ("orders.placed", {"wrong": 1}, r"data has the key \'wrong\', which OrderSchema does not know"),
        ("orders.placed", {"placedAt": 1}, r'It reads "placed_at" and sends it as "placedAt"'),
        ("orders.placed", {"custmer": "Ada"}, r'Did you mean "customer"\?'),
        ("orders.placed", {"id": 1}, r"data lacks customer, which OrderSchema requires"),
        (
            "orders.placed",
            WHOLE | {"id": "x"},
            r"cannot be serialised at the field 'id' of OrderSchema: ValueError",
        ),
        ("orders.placed", WHOLE | {"parts": [{"sku": "a", "x": 1}]}, r"data\.parts\[0\] has the key 'x'"),
        ("orders.placed", WHOLE | {"main": {"count": 1}}, r"data\.main lacks sku"),
        ("orders.placed", WHOLE | {"main": 5}, r"data\.main is int, and not an object"),
        ("orders.placed", WHOLE | {"more": {"sku": "a"}}, r"data\.more is dict, and not a list"),
        ("orders.placed", WHOLE | {"tags": "abc"}, r"data\.tags is str, and not a list"),
        ("orders.placed", [WHOLE], r"data is list, which has none of the attributes"),
        ("invoices.created", object(), r"data is object, which has none of the attributes"),
        ("orders.placed", None, r"data is NoneType, which has none"),
        ("invoices.created", {"owner": "1"}, r"data has the key 'owner', which InvoiceSchema does not know"),
        ("invoices.created", {"id": None}, r"data\.id is null, and not integer"),
        ("invoices.created", {"status": "paid"}, r"cannot be serialised at the field 'status'"),
        ("plain.created", {"wrong": 1}, r"data has the key 'wrong', which Invoice does not send"),
        ("plain.created", {"id": "x"}, r'data\.id is "x", and not integer'),
        (
            "plain.created",
            {"status": "lost"},
            r'data\.status is "lost", and not one of "draft", "sent", "paid"',
        ),
        ("plain.created", SimpleNamespace(id=1), r"data is SimpleNamespace. Pass a Invoice, or a dict"),
        ("lines.created", {"id": 1, "invoice": {}}, r"data has the key 'invoice', which Line does not send"),
    ],
)
def test_what_does_not_fit_is_an_error_at_the_call(
    state: AppState, event: str, data: t.Any, said: str
) -> None:
    with pytest.raises(PayloadError, match=rf"^{event.replace('.', chr(92) + '.')}.*{said}"):
        hooks.emit(event, data, owner="1")
    with pytest.raises(PayloadError, match=said), hooks.muted():
        hooks.emit_many(event, [data], owner="1")
    db.session.commit()
    assert recorded(state) == []


def test_rows_are_still_dumped_at_the_commit(state: AppState) -> None:
    line = Line(text="a")
    db.session.add(line)
    hooks.emit("lines.created", line, owner="1")
    line.text = "b"
    db.session.commit()

    assert [json.loads(each.data)["text"] for each in recorded(state)] == ["b"]
