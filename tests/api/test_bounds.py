"""No answer of API or console exceeds 512 KiB, whatever customers and receivers have written into the log."""

from __future__ import annotations

import json
import re
import time
import typing as t
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from flask_webhooks import reference
from flask_webhooks.catalog import load
from flask_webhooks.console.formatting import pretty
from flask_webhooks.errors import CatalogError
from flask_webhooks.ids import uuid7
from flask_webhooks.models import Attempt, Delivery, Message, Subscription
from flask_webhooks.queries.bounds import fit, html_size, json_size
from flask_webhooks.state import AppState, state_of
from tests.console.conftest import Visitor, load_principal, on_one_database
from tests.host import db
from tests.stage import deliveries, recorded, subscribe

from .conftest import Customer, quick

pytestmark = pytest.mark.long

MOST = 512 * 1024
BODIES = {
    "nested": b"[" * 500 + b"1," * 7_000 + b"1" + b"]" * 500,
    "binary": b"\xff" * 16_384,
    "controls": b"\x01" * 16_384,
    "quotes": b"\"'&<>" * 3_276,
    "json of quotes": json.dumps({"a": ["'<\"" * 10] * 400}).encode()[:16_384],
    "words": "wörter ".encode() * 2_000,
}


@pytest.fixture
def app(make_app: t.Callable[..., Flask]) -> Flask:
    from flask_webhooks import Webhooks

    hooks = Webhooks()
    hooks.principal_loader(load_principal)
    return make_app(webhooks=hooks)


def attempted(state: AppState, row: Subscription, answer: bytes, data: str, count: int) -> str:
    """Put a delivery with attempts of the greatest size into the log; return its id."""
    now = datetime.now(UTC)
    message = Message(
        id=uuid7(), event="invoices.updated", channel="invoices", owner="1", environment="staging", occurred_at=now,
        sequence=1, text="Invoice changed.", data=data, size=len(data),
        extras=json.dumps({"changes": {f"f{n}" * 50: {"from": "'" * 900, "to": "<" * 900} for n in range(100)}}),
    )  # fmt: skip
    delivery = Delivery(
        id=uuid7(), message_id=message.id, subscription_id=row.id, state="failed", due_at=None, attempts=count,
        format="channel", body=data.encode(),
    )  # fmt: skip
    headers = {f"X-{n}": "'" * 390 for n in range(20)}
    attempts = [
        Attempt(
            id=uuid7(), delivery_id=delivery.id, subscription_id=row.id, number=number, trigger="automatic",
            started_at=now, status=500, failure="http_5xx", detail="'" * 1000, url=row.url, body_sha256="",
            request_headers=json.dumps(headers), body_size=1, response_headers=json.dumps(headers),
            response_body=answer, response_truncated=False, total_seconds=0.1, worker="test",
        )
        for number in range(1, count + 1)
    ]  # fmt: skip
    with Session(state.engine) as session:
        session.add_all([message, delivery, *attempts])
        session.commit()
        return delivery.id


@on_one_database
@pytest.mark.parametrize("answer", BODIES.values(), ids=BODIES)
def test_a_delivery_with_twenty_attempts_is_a_small_page_made_at_once(
    app: Flask, state: AppState, answer: bytes
) -> None:
    row = subscribe(state, "http://127.0.0.1:5999/" + "'" * 2_000, "*")
    key = attempted(state, row, answer, json.dumps(["'\"<"] * 40_000), 20)
    call, visitor = Customer(app.test_client()), Visitor(app)
    began = time.process_time()

    shown = call("GET", f"/deliveries/{key}", expect=200)
    pages = [call.last.data, visitor.get(f"/deliveries/{key}").data]

    assert time.process_time() - began < 3
    for page in pages:
        assert len(page) < MOST
    assert 1 <= len(shown["attempt_log"]) <= 10
    assert all(json_size(each) <= 64 * 1024 for each in shown["attempt_log"])


def test_attempts_are_paged_at_both_doors(app: Flask, state: AppState) -> None:
    row = subscribe(state, "http://127.0.0.1:5999/", "*")
    key = attempted(state, row, b'{"a": 1}', "{}", 23)
    call, visitor = Customer(app.test_client()), Visitor(app)

    shown = call("GET", f"/deliveries/{key}", expect=200)
    numbers, cursor = [each["number"] for each in shown["attempt_log"]][::-1], shown["attempts_next"]
    while cursor:
        page = call("GET", f"/deliveries/{key}/attempts?cursor={cursor}&limit=5", expect=200)
        numbers += [each["number"] for each in page["items"]]
        cursor = page["next"]
    path, seen = f"/deliveries/{key}", []
    while path:
        text = visitor.get(path).text
        seen += [int(part.partition("<")[0]) for part in text.split("<h2>Attempt ")[1:]]
        older = text.partition(f'href="/webhooks/console/deliveries/{key}?before=')[2].partition('"')[0]
        path = f"/deliveries/{key}?before={older}" if older else ""

    assert numbers == seen == list(range(23, 0, -1))


def test_a_body_that_is_too_large_for_an_answer_is_fetched_by_itself(app: Flask, state: AppState) -> None:
    row = subscribe(state, "http://127.0.0.1:5999/", "*")
    data = json.dumps(['é"' * 10] * 9_000, ensure_ascii=False)
    key = attempted(state, row, b"", data, 1)
    call = Customer(app.test_client())

    shown = call("GET", f"/deliveries/{key}", expect=200)
    call("GET", f"/deliveries/{key}/body", expect=200)

    assert (shown["body"], shown["body_reason"]) == (None, "too_large")
    assert call.last.data == data.encode()
    assert call.last.headers["X-Content-Type-Options"] == "nosniff"
    Customer(app.test_client(), "2")("GET", f"/deliveries/{key}/body", expect=404)


@on_one_database
@pytest.mark.parametrize("mark", ["\x7f", "é", "\U0001f389", "<"])
def test_data_that_is_too_large_for_an_answer_is_fetched_by_itself(
    app: Flask, state: AppState, mark: str
) -> None:
    """262,144 bytes, as an event may have, are up to 1.5 MB of JSON in ASCII."""
    subscribe(state, "http://127.0.0.1:5999/", "*")
    data = {"note": mark * (200_000 // len(mark.encode()))}
    with Session(state.engine) as session:
        message = Message(
            id=uuid7(), event="invoices.updated", channel="invoices", owner="1", environment="staging",
            occurred_at=datetime.now(UTC), sequence=1, text="", data=json.dumps(data, ensure_ascii=False),
            size=200_000, extras=json.dumps({"changes": data}, ensure_ascii=False) if mark == "<" else None,
        )  # fmt: skip
        session.add(message)
        session.commit()
        key = message.id
    call = Customer(app.test_client())

    shown = call("GET", f"/messages/{key}", expect=200)
    size = len(call.last.data)
    whole = call("GET", f"/messages/{key}/data", expect=200)

    assert size < MOST
    assert (shown["data"], shown["data_reason"], shown["includes"]) == (None, "too_large", {})
    assert whole == {"data": data, "includes": {"changes": data} if mark == "<" else {}}
    assert len(shown["subscriptions"]) == 1
    Customer(app.test_client(), "2")("GET", f"/messages/{key}/data", expect=404)


def pages(call: Customer, path: str) -> t.Iterator[t.Any]:
    """Go through a list to its end; no answer may be large."""
    cursor = ""
    while cursor is not None:
        page = call("GET", f"{path}?limit=100{cursor and f'&cursor={cursor}'}", expect=200)
        assert len(call.last.data) < MOST
        yield page
        cursor = page["next"]


@on_one_database
def test_lists_are_cut_by_bytes_and_lose_nothing(app: Flask, state: AppState) -> None:
    url, words = "http://127.0.0.1:5999/" + "'" * 2_000, "é" * 1_024
    made = [
        subscribe(
            state, url, *(f"x{n:0150}.*" for n in range(40)), description=words, details={"a": "é" * 2_000}
        ).id
        for _ in range(60)
    ]
    call, visitor = Customer(app.test_client()), Visitor(app)
    with Session(state.engine) as session:
        message = Message(
            id=uuid7(), event="invoices.updated", channel="invoices", owner="1", environment="staging",
            occurred_at=datetime.now(UTC), sequence=1, text="", data=json.dumps({"a": "x" * 262_000}), size=262_000,
        )  # fmt: skip
        session.add(message)
        session.commit()
        key = message.id
    listed = [each["id"] for page in pages(call, "/subscriptions") for each in page["items"]]
    shown = [
        each["subscription_id"] for page in pages(call, f"/messages/{key}") for each in page["subscriptions"]
    ]

    assert listed == made[::-1]
    assert shown == made
    with Session(state.engine) as session:
        values = {"state": "failed", "attempts": 2, "format": "channel", "due_at": None}
        session.add_all(
            Delivery(id=uuid7(), message_id=uuid7(), subscription_id=each, **values) for each in made * 4
        )
        session.commit()
    assert len(visitor.get(f"/deliveries/live?anchor={made[0]}", headers={"HX-Request": "true"}).data) < MOST
    for path in (
        "/",
        "/deliveries",
        "/events/invoices.updated",
        f"/webhooks/{made[0]}",
        f"/webhooks/{made[0]}/edit",
        "/operator",
    ):
        assert len(visitor.get(path).data) < MOST, path


@on_one_database
@pytest.mark.parametrize(
    "name", ["url", "description", "waits", "rate_limit", "form_key", "header_name", "known_header", "event"]
)
def test_a_refused_form_is_small_whatever_was_filled_in(app: Flask, state: AppState, name: str) -> None:
    row = subscribe(state, "https://93.184.215.14/", "invoices.*")
    visitor = Visitor(app)
    form = {"url": "ftp://x/", "environment": "staging", "event": "*", "retry": "own", "waits": "x"}
    for value in ("'" * 200_000, [f"{n}'" * 60 for n in range(600)]):
        more = {"header_value": ["x"] * 600} if name == "header_name" else {}
        for path in ("/webhooks/new", f"/webhooks/{row.id}/edit"):
            answer = visitor.post(path, {**form, **more, name: value})
            assert answer.status_code in (409, 422)
            assert len(answer.data) < MOST, (path, len(answer.data))


@on_one_database
def test_a_problem_is_small_whatever_is_wrong(app: Flask) -> None:
    call = Customer(app.test_client())

    body = json.dumps({f"{n:03}" + "é" * 600: 1 for n in range(200)}, ensure_ascii=False).encode()
    answer = call.client.post(
        "/webhooks/api/subscriptions", data=body, content_type="application/json", headers=call.headers
    )

    assert answer.status_code == 422
    assert len(answer.data) < MOST


@quick(100)
@given(text=st.text(st.characters()), room=st.integers(0, 100))
def test_what_fits_is_the_longest_beginning_that_does(text: str, room: int) -> None:
    for size in (json_size, html_size):
        found = fit(text, room, size)
        assert text.startswith(found)
        assert found == "" or size(found) <= room
        assert found == text or size(text[: len(found) + 1]) > room


def test_json_nested_deep_is_not_indented_beyond_its_room() -> None:
    began = time.process_time()

    for depth in (200, 500, 900, 5_000):
        text = "[" * depth + "1," * 20_000 + "1" + "]" * depth
        assert html_size(pretty(text, 48 * 1024)) <= 48 * 1024
    assert pretty('{"a":[1]}', 48 * 1024) == '{\n  "a": [\n    1\n  ]\n}'
    assert time.process_time() - began < 2


@pytest.fixture(params=[(10, 70), (1, 700), (300, 10)], ids=["10 x 70", "1 x 700", "300 x 10"])
def many(request: pytest.FixtureRequest, make_app: t.Callable[..., Flask], tmp_path: Path) -> Flask:
    """An app whose catalogue is long, with names and descriptions of the greatest length."""
    from flask_webhooks import Webhooks

    channels, events = request.param
    shared = "model: tests.host:Invoice, schema: tests.host:InvoiceSchema, owner: owner"
    said = f"description: {'what <happens> ' * 20}"
    lines = ["version: 1", "title: Many", "channels:"]
    for n in range(channels):
        lines += [f"  {f'channel{n}_':x<64}:", f"    {{title: Channel {n}, {said}, {shared}, events: {{"]
        lines += [
            f"      {f'done{m}_':x<64}: {{title: Number {m}, {said}, on: emit}}," for m in range(events)
        ]
        lines += ["    }}"]
    (tmp_path / "many.yaml").write_text("\n".join(lines))
    hooks = Webhooks()
    hooks.principal_loader(load_principal)
    return make_app(webhooks=hooks, WEBHOOKS_CATALOG=str(tmp_path / "many.yaml"))


@on_one_database
def test_documents_of_many_events_come_in_parts(many: Flask) -> None:
    names = list(state_of(many).catalog.events)
    visitor, client, who = Visitor(many), many.test_client(), {"X-Owner": "1"}
    shown: list[str] = []
    page, pages = "/events", 0
    while page:
        pages += 1
        answer = visitor.get(page)
        assert (answer.status_code, len(answer.data) < MOST) == (200, True)
        shown += re.findall(r'class="wh-event-name" href="/webhooks/console/events/([^"]+)"', answer.text)
        more = re.search(r'rel="next" href="/webhooks/console([^"]+)"', answer.text)
        page = more[1] if more else ""
    assert (shown, pages > 1) == (names, True)
    whole = reference.listing(state_of(many))  # as the command writes it
    assert [each["name"] for channel in whole["channels"] for each in channel["events"]] == names
    for place in ("openapi.json", "docs", "catalog"):
        found: list[str] = []
        after: str | None = ""
        parts = 0
        while after is not None and (parts < 3 or len(names) < 1_000):
            parts += 1
            answer = client.get(f"/webhooks/api/{place}?after={after}", headers=who)
            assert (answer.status_code, len(answer.data) < MOST) == (200, True), place
            if place == "docs":
                found += re.findall(r'id="event-([^"]+)"', answer.text)
                more = re.search(r'href="\?after=([^"#]+)#', answer.text)
                after = more[1] if more else None
            elif place == "catalog":
                found += [each["name"] for channel in answer.json["channels"] for each in channel["events"]]
                after = answer.json.get("next_after")
            else:
                found += answer.json["webhooks"]
                after = answer.json.get("x-next-after")
        assert parts > 1 or place == "catalog"
        assert found == (names if after is None else names[: len(found)]), place
        assert client.get(f"/webhooks/api/{place}?after=nothing", headers=who).status_code == 422


TEXTS = {
    "title": 200,
    "label": 200,
    "message": 500,
    "description": 3_000,
    "reason": 3_000,
    "sample": 8_183,
}


def wordy(folder: Path, more: t.Mapping[str, int], mark: str = "'<é") -> str:
    """Write a catalogue with one event whose texts are as long as allowed; return its path.

    :param more: how much longer some are.
    """
    text = {name: (mark * most)[: most + more.get(name, 0)] for name, most in TEXTS.items()}
    text["message"] = "{label}" + text["message"][: 493 + more.get("message", 0)]
    event = {
        "title": text["title"], "description": text["description"], "message": text["message"], "on": "emit",
        "deprecated": {"reason": text["reason"]}, "sample": {"a": "'" * len(text["sample"])},
        "format": "channel", "formats": ["standard", "entity", "minimal", "slack"],
    }  # fmt: skip
    channel = {"title": text["title"], "label": text["label"], "description": text["description"]}
    (folder / "wordy.yaml").write_text(
        json.dumps(
            {"version": 1, "title": text["title"], "channels": {"ch": {**channel, "events": {"ev": event}}}},
            ensure_ascii=False,
        )
    )
    return str(folder / "wordy.yaml")


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_of_the_catalogue_has_a_most(tmp_path: Path, name: str) -> None:
    wordy(tmp_path, {})
    load("wordy.yaml", root=tmp_path)

    wordy(tmp_path, {name: 1})
    with pytest.raises(CatalogError, match="is the most"):
        load("wordy.yaml", root=tmp_path)


@on_one_database
@pytest.mark.parametrize("mark", ["'<é", "'", "🎉"])
def test_one_event_in_the_longest_texts_fits_into_every_answer(
    make_app: t.Callable[..., Flask], tmp_path: Path, mark: str
) -> None:
    from flask_webhooks import Webhooks

    hooks = Webhooks()
    hooks.principal_loader(load_principal)
    app = make_app(webhooks=hooks, WEBHOOKS_CATALOG=wordy(tmp_path, {}, mark))
    state, call, visitor = state_of(app), Customer(app.test_client()), Visitor(app)
    row = subscribe(state, "http://127.0.0.1:9/", "*")
    with app.app_context():
        hooks.emit("ch.ev", {"a": 1}, owner="1")
        db.session.commit()
        [message] = recorded(state)
        [delivery] = deliveries(state)

    for place in ("openapi.json", "docs", "catalog", "catalog/ch.ev", "messages", f"messages/{message.id}"):
        call("GET", f"/{place}", expect=200)
        assert len(call.last.data) < MOST, place
    for path in ("/", "/events", "/events/ch.ev", "/deliveries", f"/deliveries/{delivery.id}", "/webhooks/new",
                 f"/webhooks/{row.id}", f"/webhooks/{row.id}/edit", f"/webhooks/{row.id}/replay"):  # fmt: skip
        assert len(visitor.get(path).data) < MOST, path


@on_one_database
def test_forms_of_many_events_show_some_and_take_all(many: Flask) -> None:
    state = state_of(many)
    names = list(state.catalog.events)
    chosen, last = names[len(names) // 2], names[-1]
    row = subscribe(state, "https://93.184.215.14/", chosen, "*")
    visitor, form = Visitor(many), {"url": "https://93.184.215.14/", "environment": "staging"}

    for path in (
        "/webhooks/new", f"/webhooks/{row.id}/edit", f"/webhooks/{row.id}", f"/webhooks/{row.id}/replay",
        "/deliveries", "/", f"/events/{last}",
    ):  # fmt: skip
        answer = visitor.get(path)
        assert (answer.status_code, len(answer.data) < MOST) == (200, True), (path, len(answer.data))
    edit = visitor.get(f"/webhooks/{row.id}/edit").text
    assert f'name="event" value="{chosen}" checked' in edit
    assert f'name="event" value="{last}"' not in edit

    looked = visitor.post("/webhooks/new", {**form, "look": "1", "q": last, "typed": f"{chosen} changes\n"})
    assert (looked.status_code, len(looked.data) < MOST) == (200, True)
    assert f'name="event" value="{last}"' in looked.text
    assert f'name="event" value="{chosen}" checked' in looked.text
    assert f'name="include" value="{chosen} changes" checked' in looked.text
    made = visitor.post("/webhooks/new", {**form, "event": last, "typed": f"{names[0]}\n{chosen}, changes"})
    assert made.status_code == 303
    with Session(state.engine) as session:
        newest = session.scalars(sa.select(Subscription).order_by(Subscription.id.desc())).first()
        assert newest is not None
        assert {each.event: each.includes for each in newest.listeners} == {
            last: [], names[0]: [], chosen: ["changes"],
        }  # fmt: skip


@on_one_database
def test_what_is_chosen_and_has_no_box_stands_in_the_text(many: Flask) -> None:
    state = state_of(many)
    names = sorted(state.catalog.events)[:500]
    row = subscribe(state, "https://93.184.215.14/", *names)
    shown = Visitor(many).get(f"/webhooks/{row.id}/edit")
    boxes = re.findall(r'name="event" value="([^"]+)" checked', shown.text)
    typed = re.search(r'<textarea[^>]*name="typed"[^>]*>([^<]*)<', shown.text)

    assert (shown.status_code, len(shown.data) < MOST) == (200, True)
    assert typed is not None
    assert sorted([*boxes, *typed[1].split()]) == names


@on_one_database
def test_a_replay_of_an_event_that_is_not_there_is_not_one_of_all(app: Flask, state: AppState) -> None:
    row = subscribe(state, "https://93.184.215.14/", "*")
    for path in ("replay/count", "replay"):
        answer = Visitor(app).post(f"/webhooks/{row.id}/{path}", {"mode": "all", "event": "invoices.piad"})
        assert answer.status_code == 404
