"""The pages of one webhook, the log, one delivery, replays, events and the operator."""

from __future__ import annotations

import html
import json
import re
import typing as t
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import Session

from flask_webhooks import queries
from flask_webhooks.ids import uuid7
from flask_webhooks.models import Delivery, Lane, Replay, Subscription, Worker
from flask_webhooks.outbox import statistics
from flask_webhooks.queries import LogQuery
from flask_webhooks.state import AppState
from tests.console.conftest import Log, Visitor, on_one_database, state_in_database, write_log
from tests.receivers import Receiver, ok
from tests.stage import deliveries, fill, secret_of, subscribe
from tests.worker.answers import run


def shown(page: str) -> list[str]:
    """The ids of the deliveries on a page."""
    return re.findall(r'<tr[^>]* id="d-([0-9a-f-]{36})"', page)


# ---- one webhook -----------------------------------------------------------------------------------------


def test_health_is_shown_in_numbers(visitor: Visitor, state: AppState) -> None:
    row = subscribe(state, "https://example.com/", "*")
    tally = statistics.HourlyCounts()
    for number in range(10):
        tally.add(row.id, datetime.now(UTC), status=200 if number else 500, seconds=0.1, state="delivered")
    with Session(state.engine) as session:
        statistics.add(session.connection(), tally)
        session.add(Lane(subscription_id=row.id, failures=7))
        session.commit()

    page = visitor.get(f"/webhooks/{row.id}").text

    assert "90.0 %" in page
    assert re.search(r"Failures in a row</dt><dd class=\"is-bad\">7", page)
    assert json.loads(visitor.get(f"/webhooks/{row.id}/charts?as=json").text)["broken"][-1] == 1


def test_charts_have_no_gaps(visitor: Visitor, log: Log) -> None:
    for window, points in (("1h", 12), ("24h", 24), ("7d", 42), ("30d", 30)):
        path = f"/webhooks/{log.subscription.id}/charts?as=json&window={window}"
        before = datetime.now(UTC).timestamp()
        numbers = json.loads(visitor.get(path).text)

        assert {len(values) for values in numbers.values()} == {points}
        last, width = numbers["at"][-1], numbers["at"][1] - numbers["at"][0]
        assert before - width < last <= datetime.now(UTC).timestamp()
        assert sum(numbers["ok"]) == (window == "1h")  # the log was written by hand, without sums


def test_the_secret_is_shown_when_asked_and_overlaps_when_rotated(
    visitor: Visitor, state: AppState, log: Log
) -> None:
    old = secret_of(state, log.subscription)

    revealed = visitor.post(f"/webhooks/{log.subscription.id}/secret").text
    rotated = visitor.follow(
        visitor.post(f"/webhooks/{log.subscription.id}/rotate", {"overlap": "3600"})
    ).text

    new = secret_of(state, log.subscription)
    assert old in revealed.replace("&#43;", "+")
    assert new != old
    assert old in rotated
    assert new in rotated
    assert "data-countdown" in rotated
    assert new not in visitor.get(f"/webhooks/{log.subscription.id}").text


@on_one_database
def test_a_rotation_out_of_bounds_is_refused(visitor: Visitor, state: AppState, log: Log) -> None:
    before = secret_of(state, log.subscription)

    answer = visitor.post(f"/webhooks/{log.subscription.id}/rotate", {"overlap": "99999999"})

    assert answer.status_code == 422
    assert before not in answer.text
    assert secret_of(state, log.subscription) == before


def test_a_test_is_sent_and_its_answer_shown(visitor: Visitor, state: AppState, inbox: Receiver) -> None:
    row = subscribe(state, inbox.url(), "invoices.*")

    part = visitor.post(f"/webhooks/{row.id}/test", {"event": "invoices.paid"}, HX_Request="true").text
    whole = visitor.post(f"/webhooks/{row.id}/test")

    assert "Your receiver answered." in part
    assert json.loads(inbox.requests[0].body)["event"] == "invoices.paid"
    assert json.loads(inbox.requests[1].body)["event"] == "webhooks.test"
    assert re.search(r"/deliveries/[0-9a-f-]{36}$", whole.headers["Location"])
    assert visitor.post(f"/webhooks/{row.id}/test", {"event": "no.thing"}).status_code == 404


@on_one_database
def test_a_failing_test_says_how_to_fix_it(visitor: Visitor, state: AppState) -> None:
    with Receiver(ok(b"broken", 500)) as receiver:
        row = subscribe(state, receiver.url(), "invoices.*")

        part = visitor.post(f"/webhooks/{row.id}/test", {}, HX_Request="true").text

    assert "Receiver failed" in part
    assert "look in its log for this webhook-id" in part


@on_one_database
def test_snippets_are_of_this_webhook(visitor: Visitor, state: AppState) -> None:
    row = subscribe(state, "https://example.com/my/hooks?x=1", "*")

    page = visitor.get(f"/webhooks/{row.id}").text

    for language in ("Python", "Node.js", "Go", "PHP", "curl"):
        assert f">{language}</label>" in page
    assert page.count("/my/hooks") >= 6
    assert "WEBHOOK_SECRET" in page


# ---- the log ---------------------------------------------------------------------------------------------


def test_filters_find_what_fits(visitor: Visitor, log: Log) -> None:
    ids = log.deliveries
    newest_first = [ids[name] for name in ("cancelled", "held", "failed", "delivered", "pending")]

    assert shown(visitor.get("/deliveries").text) == newest_first
    assert shown(visitor.get("/deliveries?state=failed").text) == [ids["failed"]]
    assert shown(visitor.get("/deliveries?event=invoices.created").text) == [ids["held"], ids["delivered"]]
    assert shown(visitor.get("/deliveries?event=invoices.*").text) == newest_first
    assert shown(visitor.get("/deliveries?event=clients.*").text) == []
    assert shown(visitor.get("/deliveries?status=5xx").text) == [ids["failed"]]
    assert shown(visitor.get("/deliveries?status=200").text) == [ids["delivered"]]
    assert shown(visitor.get("/deliveries?status=none").text) == []
    assert shown(visitor.get(f"/deliveries?q={ids['held'][-8:].upper()}").text) == [ids["held"]]
    assert shown(visitor.get(f"/deliveries?webhook={log.subscription.id}&time=15m").text) == newest_first


def test_pages_follow_one_another_without_loss(state: AppState) -> None:
    first, second = (subscribe(state, f"https://{name}.example/", "*") for name in "ab")
    with Session(state.engine) as session:
        for number in range(95):
            row = first if number % 3 else second
            name = ("delivered", "failed", "pending")[number % 3]
            session.add(
                Delivery(
                    id=uuid7(),
                    message_id=uuid7(),
                    subscription_id=row.id,
                    state=name,
                    due_at=None,
                    format="channel",
                )
            )
        session.commit()
        everything = list(session.scalars(sa.select(Delivery.id).order_by(Delivery.id.desc())))
        found: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            part = queries.search(
                session.connection(), LogQuery(subscriptions=(first.id, second.id), before=cursor), 20
            )
            found += [entry.row.id for entry in part.entries]
            cursor = part.next

    assert found == everything


def test_a_search_gives_up_and_goes_on(state: AppState) -> None:
    logs = [write_log(state) for _ in range(4)]
    oldest = logs[0].deliveries["pending"]
    with state.engine.connect() as connection:
        wanted = LogQuery(text=oldest)
        first = queries.search(connection, wanted, 10, reach=6)
        turns = 1
        while first.next is not None:
            assert first.is_cut
            first = queries.search(connection, LogQuery(text=oldest, before=first.next), 10, reach=6)
            turns += 1

    assert [entry.row.id for entry in first.entries] == [oldest]
    assert turns > 2


def test_the_live_part_holds_what_came_since(visitor: Visitor, state: AppState, log: Log) -> None:
    page = visitor.get("/deliveries").text
    address = re.search(r'hx-get="(/webhooks/console/deliveries/live[^"]+)"', page)
    assert address is not None
    new = write_log(state, "https://new.example/")

    part = visitor.get(address[1].replace("&amp;", "&").removeprefix("/webhooks/console")).text

    assert set(shown(part)) == {*log.deliveries.values(), *new.deliveries.values()}
    assert part.count("wh-new") == 5


@on_one_database
def test_older_pages_come_as_rows_for_htmx(visitor: Visitor, log: Log) -> None:
    newest = log.deliveries["cancelled"]

    part = visitor.get(f"/deliveries?before={newest}", headers={"HX-Request": "true"}).text

    assert len(shown(part)) == 4
    assert "<html" not in part
    assert "<html" in visitor.get(f"/deliveries?before={newest}").text


# ---- one delivery ----------------------------------------------------------------------------------------


def test_a_delivery_shows_its_attempts(visitor: Visitor, log: Log) -> None:
    page = visitor.get(f"/deliveries/{log.deliveries['failed']}").text

    for part in (
        "Changed",
        "Committed",
        "change and message in one transaction",
        "Picked up by a worker",
        "Attempt 1",
        "receiver took 11 ms",
        "Receiver failed",
    ):
        assert part in page
    for part in (
        "look in its log",
        "203.0.113.1",
        "Copy as cURL",
        "curl -i -X POST",
        "webhook-id",
        "down",
        "DNS",
    ):
        assert part in page
    assert re.search(
        r'<th scope="row">status</th><td><del dir="auto">draft</del></td><td><ins dir="auto">sent</ins>', page
    )
    assert "&#34;event&#34;: &#34;invoices.updated&#34;" in page


def test_a_body_that_would_be_another_today_is_not_shown(
    visitor: Visitor, state: AppState, log: Log, inbox: Receiver
) -> None:
    written, sent = f"/deliveries/{log.deliveries['delivered']}", subscribe(state, inbox.url())
    fill(state, [sent], 1)
    assert run(state).delivered == 1
    [made] = [row for row in deliveries(state) if row.subscription_id == sent.id]
    said = "rendering it again would give other bytes than were sent"

    page = visitor.get(written).text  # its attempt says that other bytes were sent
    assert said in page
    assert "&#34;event&#34;" not in page
    assert "Copy as cURL" not in page

    page = visitor.get(f"/deliveries/{made.id}").text
    assert said not in page
    assert "&#34;event&#34;: &#34;reports.ready&#34;" in page
    assert "Copy as cURL" in page


def test_an_open_page_is_sent_again_when_something_has_happened(
    visitor: Visitor, state: AppState, log: Log
) -> None:
    page = visitor.get(f"/deliveries/{log.deliveries['pending']}").text
    address = re.search(r'hx-get="/webhooks/console(/deliveries/[^"]+)" hx-trigger="every', page)
    assert address is not None
    place = html.unescape(address[1])

    before = visitor.get(place, headers={"HX-Request": "true"})
    visitor.post(f"/deliveries/{log.deliveries['pending']}/cancel")
    after = visitor.get(place, headers={"HX-Request": "true"})

    assert (before.status_code, before.text) == (204, "")
    assert after.status_code == 200
    assert "hx-trigger" not in after.text
    assert visitor.get(place).status_code == 200


def test_retry_and_cancel(visitor: Visitor, state: AppState, log: Log) -> None:
    failed, pending = log.deliveries["failed"], log.deliveries["pending"]

    retried = visitor.post(f"/deliveries/{failed}/retry")
    cancelled = visitor.post(f"/deliveries/{pending}/cancel")
    nothing_left = visitor.post(f"/deliveries/{log.deliveries['delivered']}/cancel")

    assert retried.headers["Location"].endswith("?notice=retried")
    assert cancelled.headers["Location"].endswith("?notice=cancelled")
    assert (state_in_database(state, failed), state_in_database(state, pending)) == ("pending", "cancelled")
    assert nothing_left.status_code == 409


def test_a_purged_message_leaves_a_readable_page(visitor: Visitor, state: AppState, log: Log) -> None:
    with state.engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM webhook_messages"))

    assert "Message purged" in visitor.get(f"/deliveries/{log.deliveries['failed']}").text
    assert "purged" in visitor.get("/deliveries").text


# ---- replay ----------------------------------------------------------------------------------------------


def test_a_replay_is_counted_begun_and_stopped(visitor: Visitor, state: AppState, log: Log) -> None:
    with Session(state.engine) as session:
        session.query(Replay).delete()
        session.commit()
    place = f"/webhooks/{log.subscription.id}/replay"

    counted = visitor.post(f"{place}/count", {"mode": "failed", "time": "24h"}).text
    begun = visitor.post(place, {"mode": "failed", "time": "24h"})
    again = visitor.post(place, {"mode": "failed", "time": "24h"})
    other = visitor.post(place, {"mode": "all", "time": "24h"})
    replay = begun.headers["Location"].removeprefix("/webhooks/console").partition("?")[0]
    stopped = visitor.post(f"{replay}/stop")

    assert "1 delivery would be sent again." in counted
    assert again.headers["Location"] == begun.headers["Location"]
    assert other.status_code == 409
    assert "still running" in other.text
    assert stopped.headers["Location"].endswith("?notice=stopped")
    assert "Cancelled" in visitor.get(replay).text


@on_one_database
def test_progress_is_refreshed_while_it_runs(visitor: Visitor, state: AppState, log: Log) -> None:
    running = visitor.get(f"/replays/{log.replay}", headers={"HX-Request": "true"}).text
    with state.engine.begin() as connection:
        connection.execute(sa.update(Replay).values(state="done", queued=3))

    done = visitor.get(f"/replays/{log.replay}", headers={"HX-Request": "true"}).text

    assert "hx-trigger" in running
    assert "hx-trigger" not in done
    assert "<progress" in done


# ---- events, operator ------------------------------------------------------------------------------------


def test_the_catalogue_is_shown_with_who_listens(visitor: Visitor, log: Log) -> None:
    every, one = visitor.get("/events").text, visitor.get("/events/invoices.paid").text

    assert every.count('class="wh-event-name"') == 11
    assert ">1 webhook<" in every
    assert "When status goes from sent to paid." in one
    assert "example.com" in one
    for word in ("total", "decimal", "idempotency_key", "JSON Schema"):
        assert word in one


@on_one_database
def test_of_many_listeners_the_newest_are_named_and_the_others_counted(
    visitor: Visitor, state: AppState
) -> None:
    rows = [subscribe(state, f"https://n{number}.example/", "invoices.*") for number in range(52)]

    page = visitor.get("/events/invoices.paid").text

    assert "and 2 more" in page
    assert [row.id in page for row in rows] == [False] * 2 + [True] * 50


def test_the_operator_sees_lag_workers_and_the_worst(app: Flask, state: AppState, log: Log) -> None:
    with Session(state.engine) as session:
        session.add(
            Worker(
                name="dead:1", started_at=datetime.now(UTC), seen_at=datetime.now(UTC) - timedelta(hours=1)
            )
        )
        session.add(Worker(name="alive:2", started_at=datetime.now(UTC), seen_at=datetime.now(UTC)))
        session.add(Lane(subscription_id=log.subscription.id, failures=42))
        session.execute(
            sa.update(Delivery)
            .where(Delivery.state == "pending")
            .values(due_at=datetime.now(UTC) - timedelta(minutes=9))
        )
        session.commit()

    page = Visitor(app, operator=True).get("/operator").text

    assert re.search(r'Outbox lag</dt><dd class="is-bad">9 min', page)
    assert re.search(r"dead:1</td><td[^>]*><span[^>]*>[^>]*>[^>]*></svg>Not seen", page)
    assert re.search(r"alive:2</td><td[^>]*>.*?</svg>On", page, re.DOTALL)
    assert ">42<" in page
    assert "no Redis" in page


def test_a_lane_that_waits_says_for_whom(app: Flask, state: AppState, log: Log) -> None:
    visitor, said = Visitor(app, operator=True), {}
    for whom in ("receiver", "sender"):
        with Session(state.engine) as session:
            session.execute(sa.delete(Lane))
            soon = datetime.now(UTC) + timedelta(minutes=1)
            session.add(Lane(subscription_id=log.subscription.id, waits_for=whom, sendable_at=soon))
            session.commit()
        said[whom] = visitor.get(f"/webhooks/{log.subscription.id}").text + visitor.get("/operator").text

    assert "Your receiver asks us to slow down" in said["receiver"]
    assert "workers cannot reach any receiver" not in said["receiver"]
    assert "We cannot reach any receiver because of a fault on our side" in said["sender"]
    assert "1 webhook waits because workers cannot reach any receiver" in said["sender"]


def test_the_operator_sees_what_belongs_elsewhere(app: Flask, state: AppState, log: Log) -> None:
    with Session(state.engine) as session:
        session.execute(sa.update(Subscription).values(environment="production"))
        session.commit()

    page = Visitor(app, operator=True).get("/operator").text

    assert re.search(
        r"[0-9]+ deliver(y|ies) stays? pending: .* of production, and this app sends for staging", page
    )


def test_the_queue_is_counted_where_redis_is(app: Flask, state: AppState) -> None:
    state.embedded.start()
    try:
        page = Visitor(app, operator=True).get("/operator").text
    finally:
        state.embedded.stop_if_last()

    assert re.search(r"Queue webhooks</dt><dd>0", page)


@on_one_database
def test_every_state_has_a_name(visitor: Visitor, log: Log) -> None:
    page = visitor.get("/deliveries").text
    names: t.Final = ("Retrying", "Delivered", "Failed", "Held", "Cancelled")

    for name in names:
        assert re.search(rf"</svg>{name}", page), name
