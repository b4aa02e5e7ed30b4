from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

from flask_webhooks.messages import delivery_row, message_row, payload_message, size_of
from flask_webhooks.models import Delivery, Message
from flask_webhooks.state import AppState

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def row(state: AppState) -> dict[str, object]:
    return message_row(
        state.catalog.events["invoices.created"],
        owner="1",
        environment="staging",
        occurred_at=NOW,
        clock=7,
        entity_id="3",
        status="sent",
        data="{}",
        extras=None,
        size=2,
        dedupe_key=None,
    )


def test_a_message_has_all_columns_but_the_sequence_which_is_made_of_its_clock(state: AppState) -> None:
    made = row(state)

    assert {*made} - {"clock"} == {column.name for column in Message.__table__.columns} - {"sequence"}


def test_a_delivery_has_all_columns_but_those_that_an_attempt_fills(state: AppState) -> None:
    made = delivery_row(state.catalog.events["invoices.created"], "m", "s", format=None)

    columns = {column.name for column in Delivery.__table__.columns}
    assert {*made} == columns - {"body", "finished_at"}


def test_the_format_is_the_events_own_where_the_chosen_one_is_not_allowed(state: AppState) -> None:
    event = replace(state.catalog.events["invoices.created"], formats=("channel", "standard"))

    chosen = [delivery_row(event, "m", "s", format=each)["format"] for each in ("standard", "no such", None)]

    assert chosen == ["standard", event.format, event.format]


def test_includes_are_kept_in_one_order(state: AppState) -> None:
    event = state.catalog.events["invoices.created"]

    kept = [
        delivery_row(event, "m", "s", format=None, includes=each)["includes"] for each in ({"b", "a"}, ())
    ]

    assert kept == ["a,b", None]


def test_a_format_sees_the_channel_in_the_singular(state: AppState) -> None:
    recorded = SimpleNamespace(**row(state), sequence=8)

    shown = payload_message(recorded, "BusinessLoan  (old)", {})

    assert (shown.channel, shown.name, shown.entity_type) == ("invoices", "created", "business_loan_old")


def test_sizes_are_in_bytes() -> None:
    assert size_of("é", None, "ab", "") == 4
