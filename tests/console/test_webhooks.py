"""The list of webhooks and the form: what a customer sees, and errors next to their fields."""

from __future__ import annotations

import re
import typing as t
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from flask_webhooks.models import Delivery, Lane, Worker
from flask_webhooks.state import AppState
from tests.console.conftest import FORM, SECRET, Log, Visitor, on_one_database, only, write_log
from tests.receivers import Receiver
from tests.stage import subscribe

# ---- list ------------------------------------------------------------------------------------------------


@on_one_database
def test_without_a_webhook_the_page_teaches(visitor: Visitor, app: Flask) -> None:
    page = visitor.get("/").text

    assert "Add your first webhook" in page
    assert "invoices.created" in page
    assert "Add your first webhook" not in Visitor(app, rights="read").get("/").text


@pytest.mark.parametrize(
    ("columns", "lane", "label"),
    [
        ({}, {}, "On"),
        ({"active": False}, {}, "Off"),
        ({"active": False, "disabled_reason": "gone"}, {}, "Disabled"),
        ({}, {"failures": 3}, "Failing"),
        ({}, {"failures": 12, "paused_until": timedelta(minutes=5)}, "Paused"),
        ({}, {"failures": 0, "paused_until": timedelta(minutes=-5)}, "On"),
    ],
    ids=["on", "off", "disabled", "failing", "paused", "pause over"],
)
def test_each_standing_has_its_badge(
    visitor: Visitor, state: AppState, columns: dict[str, t.Any], lane: dict[str, t.Any], label: str
) -> None:
    row = subscribe(state, "https://example.com/", "*", **columns)
    moments = {
        name: datetime.now(UTC) + value if isinstance(value, timedelta) else value
        for name, value in lane.items()
    }
    with Session(state.engine) as session:
        session.add(Lane(subscription_id=row.id, **moments))
        session.commit()

    page = visitor.get("/").text

    badge = re.search(r'class="wh-badge[^>]*>.*?</svg>(\w+)', page)
    assert badge is not None
    assert badge[1] == label


def test_search_and_filters(visitor: Visitor, state: AppState) -> None:
    subscribe(state, "https://one.example/", "*", description="Alpha 100%")
    subscribe(state, "https://two.example/", "*", active=False)

    def found(query: str) -> list[str]:
        return sorted(re.findall(r"https://(\w+)\.example</span>", visitor.get(f"/?{query}").text))

    assert found("") == ["one", "two"]
    assert found("q=ONE.ex") == ["one"]
    assert found("q=alpha 100%25") == ["one"]
    assert found("q=%25") == ["one"]
    assert found("state=off") == ["two"]
    assert found("environment=production") == []


def test_every_standing_is_found_among_more_than_a_page(visitor: Visitor, state: AppState) -> None:
    now = datetime.now(UTC)
    rows: dict[str, tuple[dict[str, t.Any], dict[str, t.Any]]] = {
        "on": ({}, {"paused_until": now - timedelta(minutes=5)}),
        "off": ({"active": False}, {"failures": 3}),
        "disabled": ({"active": False, "disabled_reason": "gone"}, {}),
        "failing": ({}, {"failures": 3}),
        "paused": ({}, {"failures": 12, "paused_until": now + timedelta(minutes=5)}),
    }
    wanted = {}
    for name, (columns, lane) in rows.items():
        wanted[name] = subscribe(state, f"https://{name}.example/", "*", **columns)
        with Session(state.engine) as session:
            session.add(Lane(subscription_id=wanted[name].id, **lane))
            session.commit()
    for number in range(50):  # as many as a page holds, all newer, and never sent anything
        subscribe(state, f"https://newer{number}.example/", "*", active=number % 2 == 0)

    for name in rows:
        page = visitor.get(f"/?state={name}").text
        assert (wanted[name].id in page) is True, name
        assert [other for other in rows if other != name and wanted[other].id in page] == []


@on_one_database
def test_older_pages_keep_the_filters(visitor: Visitor, state: AppState) -> None:
    for number in range(51):
        subscribe(state, f"https://one{number}.example/", "*")

    page = visitor.get("/?q=one&state=on&environment=staging").text

    older = re.search(r'href="([^"]+)">Older webhooks', page)
    assert older is not None
    for part in ("q=one", "state=on", "environment=staging", "before="):
        assert part in older[1]


@on_one_database
def test_htmx_gets_the_list_alone(visitor: Visitor, state: AppState) -> None:
    subscribe(state, "https://one.example/", "*")

    part = visitor.get("/", headers={"HX-Request": "true"}).text

    assert "one.example" in part
    assert "<html" not in part


def test_a_missing_worker_is_shown_with_the_command(app: Flask, state: AppState) -> None:
    visitor = Visitor(app, operator=True)
    assert "flask webhooks worker" in visitor.get("/").text

    for age, is_told in ((timedelta(seconds=100), False), (timedelta(seconds=130), True)):
        with Session(state.engine) as session:
            session.merge(Worker(name="w", started_at=datetime.now(UTC), seen_at=datetime.now(UTC) - age))
            session.commit()

        assert ("flask webhooks worker" in visitor.get("/").text) is is_told


@on_one_database
def test_a_customer_reads_that_deliveries_are_delayed_and_no_command(app: Flask, visitor: Visitor) -> None:
    page = visitor.get("/").text

    assert "Deliveries are delayed." in page
    assert "flask webhooks worker" not in page

    app.debug = True

    assert "flask webhooks worker" in visitor.get("/").text


def test_the_switch_holds_and_asks(visitor: Visitor, state: AppState, log: Log) -> None:
    place = f"/webhooks/{log.subscription.id}/switch"

    off = visitor.post(place)
    blocked = visitor.post(place, {"active": "on"})
    is_on_after_blocked = only(state).active
    on = visitor.post(place, {"active": "on", "held": "discard"})

    assert off.headers["Location"].endswith("?notice=off")
    assert blocked.headers["Location"].endswith("#held")
    assert is_on_after_blocked is False
    assert on.headers["Location"].endswith("?notice=on")
    with state.engine.connect() as connection:
        states = connection.scalars(sa.select(Delivery.state)).all()
    assert sorted(states) == ["cancelled", "cancelled", "cancelled", "delivered", "failed"]


@on_one_database
def test_the_switch_answers_htmx_with_its_row(visitor: Visitor, state: AppState) -> None:
    row = subscribe(state, "https://one.example/", "*")

    answer = visitor.post(f"/webhooks/{row.id}/switch", {"place": "list"}, HX_Request="true")

    assert 'aria-checked="false"' in answer.text
    assert answer.text.lstrip().startswith("<tr")


# ---- form ------------------------------------------------------------------------------------------------


def test_a_webhook_is_made_and_its_secret_shown_once(visitor: Visitor, state: AppState) -> None:
    answer = visitor.post("/webhooks/new", FORM)
    ahead = visitor.follow(answer, headers={"Sec-Purpose": "prefetch;prerender"})
    visitor.client.head(answer.location, headers=visitor.headers)
    page = visitor.follow(answer)

    row = only(state)
    assert answer.status_code == 303
    assert answer.location.startswith(f"/webhooks/console/webhooks/{row.id}/set-up?once=")
    assert re.search(SECRET, page.text)
    assert not re.search(SECRET, ahead.text)  # nor has it taken anything away
    for each in (answer, page):
        assert each.headers["Cache-Control"] == "no-store"
    again = visitor.follow(answer)
    assert again.status_code == 200
    assert not re.search(SECRET, again.text)
    assert "whsec_•" in again.text
    assert {each.event: each.includes for each in row.listeners} == {
        "invoices.created": [],
        "invoices.updated": ["lines", "changes"],
    }
    assert (row.owner, row.description, row.environment) == ("1", "Mine", "staging")


def made_by(visitor: Visitor, answer: TestResponse) -> tuple[str, str]:
    """Return the id and the secret on the page that follows the creation of a webhook."""
    answer = visitor.follow(answer)
    key, secret = re.search(r"/webhooks/([0-9a-f-]{36})", answer.text), re.search(r"whsec_[^<]+", answer.text)
    assert key is not None
    assert secret is not None
    return key[1], secret[0]


def form_key(visitor: Visitor) -> str:
    """Return the key of a form as it is shown."""
    found = re.search(r'name="form_key" value="([^"]{20,})"', visitor.get("/webhooks/new").text)
    assert found is not None
    return found[1]


def test_the_same_form_sent_again_makes_nothing_and_shows_the_same(visitor: Visitor, state: AppState) -> None:
    form = {**FORM, "form_key": form_key(visitor)}

    answers = [visitor.post("/webhooks/new", form) for _ in range(2)]

    [first, second] = [made_by(visitor, answer) for answer in answers]
    assert first == second
    assert first[0] == only(state).id


@on_one_database
def test_another_form_or_a_changed_one_makes_another(visitor: Visitor, state: AppState) -> None:
    key = form_key(visitor)
    forms = [
        {**FORM, "form_key": key},
        {**FORM, "form_key": key, "description": "Went back and wrote this"},
        {**FORM, "form_key": form_key(visitor)},
        FORM,
        FORM,
    ]

    assert len({made_by(visitor, visitor.post("/webhooks/new", form)) for form in forms}) == len(forms)


def test_both_halves_of_a_double_click_make_one(app: Flask, visitor: Visitor, state: AppState) -> None:
    form = {**FORM, "form_key": form_key(visitor)}
    tokens = [visitor.token()] * 4
    with ThreadPoolExecutor(len(tokens)) as pool:
        answers = list(pool.map(lambda token: Visitor(app).post("/webhooks/new", form, token=token), tokens))

    assert {made_by(visitor, answer)[0] for answer in answers} == {only(state).id}


@on_one_database
def test_a_key_is_of_no_use_to_another_owner(app: Flask, visitor: Visitor, state: AppState) -> None:
    form = {**FORM, "form_key": form_key(visitor)}
    answer = visitor.post("/webhooks/new", form)
    other = Visitor(app, owner="2")

    assert other.follow(answer).status_code == 404
    mine = made_by(visitor, answer)
    theirs = made_by(other, other.post("/webhooks/new", form))

    assert mine[0] != theirs[0]
    assert mine[1] != theirs[1]


def test_what_was_made_and_removed_is_not_made_again(visitor: Visitor, state: AppState) -> None:
    form = {**FORM, "form_key": form_key(visitor)}
    key, _secret = made_by(visitor, visitor.post("/webhooks/new", form))
    visitor.post(f"/webhooks/{key}/remove")

    again = visitor.post("/webhooks/new", form)

    assert again.location == "/webhooks/console/"
    assert only(state).deleted_at is not None


@on_one_database
def test_every_mistake_is_shown_next_to_its_field(visitor: Visitor) -> None:
    wrong = {
        "url": "ftp://example.com",
        "description": "x" * 2000,
        "retry": "own",
        "waits": "5, soon",
        "rate_limit": "fast",
        "header_name": ["Host", "X-Ok"],
        "header_value": ["evil", "fine"],
        "format": "entity",
    }

    page = visitor.post("/webhooks/new", {**FORM, **wrong}).text

    for field in ("url", "description", "retry", "rate_limit", "headers", "format"):
        assert f'id="wh-error-{field}"' in page, field
    for field in ("url", "description", "retry", "rate_limit"):
        assert f'aria-invalid="true" aria-describedby="wh-error-{field}"' in page, field
    assert 'value="ftp://example.com"' in page
    assert 'value="X-Ok"' in page


@on_one_database
def test_a_schedule_of_ones_own_has_waits_in_it(visitor: Visitor, state: AppState) -> None:
    page = visitor.post("/webhooks/new", {**FORM, "retry": "own", "waits": " "}).text

    assert "Enter the seconds before each retry" in page
    row = subscribe(state, "https://example.com/", "*", retry=[])  # the API lets it be none
    assert '<option value="none" selected>' in visitor.get(f"/webhooks/{row.id}/edit").text


@on_one_database
@pytest.mark.parametrize(
    ("events", "names"),
    [
        (["ledgers.closed", "invoices.created"], ("Ledgers", "invoices")),
        (["ledgers.*", "*"], ("Ledgers", "every channel")),
    ],
    ids=["with another", "with everything"],
)
def test_ledgers_with_other_channels_is_refused_and_explained(
    visitor: Visitor, events: list[str], names: tuple[str, str]
) -> None:
    answer = visitor.post("/webhooks/new", {**FORM, "event": events, "include": []})

    assert answer.status_code == 422
    assert "is exclusive" in answer.text
    assert names[1] in answer.text


@on_one_database
def test_the_picker_knows_what_is_exclusive(visitor: Visitor) -> None:
    page = visitor.get("/webhooks/new").text

    marked = re.findall(r'data-name="(\w+)"[^>]*?data-exclusive="(\w+)"', page)
    assert marked == [("ledgers", "subscription")]
    assert page.count('class="wh-channel') >= 4
    assert "When status becomes sent." in page
    assert "updated_at" not in page  # which does not count, and is none of what is sent


def test_a_change_keeps_what_was_not_changed(visitor: Visitor, state: AppState) -> None:
    visitor.post(
        "/webhooks/new",
        {**FORM, "header_name": "X-Api-Key", "header_value": "hush", "retry": "own", "waits": "5, 60"},
    )
    row = only(state)
    page = visitor.get(f"/webhooks/{row.id}/edit").text

    answer = visitor.post(
        f"/webhooks/{row.id}/edit",
        {**FORM, "description": "Yours", "version": row.version, "retry": "own", "waits": "5, 60"},
    )

    changed = only(state)
    assert answer.headers["Location"].endswith("?notice=saved")
    assert (changed.description, changed.retry) == ("Yours", [5, 60])
    assert state.vault.open(changed.headers or "") == '{"X-Api-Key": "hush"}'
    assert "X-Api-Key" in page
    assert "hush" not in page
    assert 'value="5, 60"' in page


@on_one_database
def test_a_header_is_removed_by_name(visitor: Visitor, state: AppState) -> None:
    visitor.post("/webhooks/new", {**FORM, "header_name": "X-Api-Key", "header_value": "hush"})
    row = only(state)

    visitor.post(f"/webhooks/{row.id}/edit", {**FORM, "version": row.version, "drop_header": "X-Api-Key"})

    assert only(state).headers is None


def test_a_change_over_another_change_is_refused(visitor: Visitor, state: AppState) -> None:
    row = subscribe(state, "https://93.184.215.14/", "*")
    visitor.post(f"/webhooks/{row.id}/edit", {**FORM, "version": row.version})

    answer = visitor.post(f"/webhooks/{row.id}/edit", {**FORM, "version": row.version, "description": "Late"})

    assert answer.status_code == 409
    assert only(state).description == "Mine"


@on_one_database
def test_a_single_event_with_its_whole_channel_is_dropped(visitor: Visitor, state: AppState) -> None:
    visitor.post("/webhooks/new", {**FORM, "event": ["invoices.*", "invoices.created", "invoices.updated"]})

    assert {each.event for each in only(state).listeners} == {"invoices.*", "invoices.updated"}


@on_one_database
def test_a_url_is_checked_while_the_form_is_filled_in(visitor: Visitor) -> None:
    good = visitor.post("/check-url", {"url": "https://93.184.215.14/x"}).text
    bad = visitor.post("/check-url", {"url": "https://169.254.169.254/"}).text

    assert "may be used" in good
    assert "wh-error" not in good
    assert "wh-error" in bad


@on_one_database
def test_a_url_is_tried_on_demand(visitor: Visitor, inbox: Receiver) -> None:
    reached = visitor.post("/probe", {"url": inbox.url()}).text
    refused = visitor.post("/probe", {"url": "http://127.0.0.1:1/"}).text

    assert "Reached in" in reached
    assert ">200<" in reached
    assert inbox.requests[0].method == "POST"
    assert "wh-error" in refused


@on_one_database
def test_requests_on_a_click_are_limited(
    app: Flask, visitor: Visitor, state: AppState, inbox: Receiver
) -> None:
    row = subscribe(state, inbox.url(), "*")
    probes = [visitor.post("/probe", {"url": inbox.url()}, HX_Request="true") for _ in range(20)]

    one_more = visitor.post("/probe", {"url": inbox.url()}, HX_Request="true")
    test = visitor.post(f"/webhooks/{row.id}/test", HX_Request="true")
    whole = visitor.post(f"/webhooks/{row.id}/test")

    assert {answer.status_code for answer in probes} == {200}
    assert len(inbox.requests) == 20
    for answer in (one_more, test, whole):
        assert answer.status_code == 429
        assert re.search(r"Try again in \d s", answer.text)
    assert 0 < int(one_more.headers["Retry-After"]) <= 3
    assert "<html" not in one_more.text
    assert "<html" in whole.text
    assert "Reached in" in Visitor(app, owner="2").post("/probe", {"url": inbox.url()}).text


@on_one_database
def test_the_preview_shows_the_body_as_it_would_be_sent(visitor: Visitor) -> None:
    sent = {
        "preview_event": "invoices.updated",
        "format": "channel",
        "environment": "production",
        "event": "invoices.updated",
        "include": "invoices.updated changes",
    }

    body = visitor.post("/preview", sent).text

    for part in ("invoices.updated", "idempotency_key", "production", "&#34;changes&#34;"):
        assert part in body
    assert visitor.post("/preview", {"preview_event": "no.thing"}).status_code == 404


def test_a_webhook_is_removed(visitor: Visitor, state: AppState) -> None:
    log = write_log(state)

    answer = visitor.post(f"/webhooks/{log.subscription.id}/remove")

    assert answer.headers["Location"].endswith("?notice=removed")
    assert "example.com" not in visitor.get("/").text
