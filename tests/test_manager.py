"""Subscriptions from the host's own code, in the host's own transactions."""

from __future__ import annotations

import dataclasses
import json
import typing as t
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import Session

from flask_webhooks import (
    ALL_OWNERS,
    Subscription,
    SubscriptionChangedError,
    SubscriptionError,
    SubscriptionMissingError,
    ThrottledError,
    Webhooks,
    WebhooksError,
    models,
    signals,
    signing,
    subscriptions,
)
from flask_webhooks.errors import ConfigurationError
from flask_webhooks.models import Delivery, State
from flask_webhooks.state import AppState
from tests.host import Client, Invoice, Note, db, make_transactional
from tests.stage import fill

URL = "http://127.0.0.1:5999/hooks"
webhooks = Webhooks()


def create(**values: t.Any) -> Subscription:
    return webhooks.subscriptions.create(
        **{"owner": "1", "url": URL, "events": ["invoices.created"], **values}
    )


def there(state: AppState) -> list[str]:
    """Ids of all subscriptions, as another connection sees them."""
    with Session(state.own_engine) as session:
        return list(session.scalars(sa.select(models.Subscription.id)))


# ---- what it makes ---------------------------------------------------------------------------------------


def test_it_makes_what_the_api_makes(app: Flask, state: AppState) -> None:
    values = {
        "url": URL,
        "events": [{"event": "invoices.updated", "includes": ["lines"]}],
        "channels": ["clients"],
        "headers": {"X-Key": "open sesame"},
        "metadata": {"crm": 7},
        "description": "CRM",
        "retry": [5, 60],
        "rate_limit": 2,
    }
    by_api = app.test_client().post("/webhooks/api/subscriptions", json=values, headers={"X-Owner": "1"}).json

    made = create(**values)
    db.session.commit()

    mine = {"id", "secret", "created_at", "updated_at"}
    found = {name: getattr(made, name) for name in by_api if name not in mine}
    assert json.loads(json.dumps(found)) == {name: by_api[name] for name in found}
    assert (
        app.test_client()
        .get(f"/webhooks/api/subscriptions/{made.id}/secret", headers={"X-Owner": "1"})
        .json["secret"]
        == made.secret
    )


def test_the_secret_is_in_what_is_returned_this_once_and_in_no_repr(app: Flask) -> None:
    made = create(url="http://127.0.0.1:5999/sesame", metadata={"note": "sesame"})
    assert made.secret is not None
    assert signing.parse(made.secret).kind == "v1"

    assert made.secret not in repr(made)
    assert "sesame" not in repr(made)
    assert made.id in repr(made)
    assert webhooks.subscriptions.get(made.id, owner="1").secret is None
    assert create(signature="v1a").secret.startswith("whpk_")  # type: ignore[union-attr]


REFUSED: dict[str, dict[str, t.Any]] = {
    "much": {
        "url": "https://10.0.0.1/",
        "events": ["invoice.created"],
        "retry": [-1],
        "headers": {"Host": "x"},
    },
    "url": {"url": "nowhere"},
    "nothing": {"events": []},
    "exclusive": {"events": ["ledgers.closed", "invoices.created"]},
    "secret": {"secret": "whsec_c2hvcnQ="},
}


@pytest.mark.parametrize("values", REFUSED.values(), ids=REFUSED)
def test_it_refuses_what_the_api_refuses_with_the_same_words(app: Flask, values: dict[str, t.Any]) -> None:
    given = {"url": URL, "events": ["invoices.created"], **values}
    said = app.test_client().post("/webhooks/api/subscriptions", json=given, headers={"X-Owner": "1"}).json

    with pytest.raises(SubscriptionError) as caught:
        create(**values)

    assert caught.value.code == said["code"]
    assert [
        {"field": field, "message": message}
        for field, messages in caught.value.fields.items()
        for message in messages
    ] == said["errors"]


@pytest.mark.parametrize("owner", ["", "None", None, 7, ALL_OWNERS, "a\0"], ids=repr)
def test_none_is_no_owner(app: Flask, state: AppState, owner: t.Any) -> None:
    with pytest.raises(SubscriptionError) as caught:
        create(owner=owner, url="nowhere")

    assert set(caught.value.fields) == {"owner", "url"}
    assert there(state) == []


def test_where_the_environment_depends_on_the_event_it_has_to_be_said(
    make_app: t.Callable[..., Flask],
) -> None:
    app = make_app(WEBHOOKS_ENVIRONMENT=lambda event, data, owner: "staging")
    with app.app_context():
        with pytest.raises(SubscriptionError) as caught:
            create(url="nowhere")
        assert set(caught.value.fields) == {"environment", "url"}
        assert create(environment="production").environment == "production"


def test_no_name_is_looked_up(app: Flask, state: AppState) -> None:
    asked: list[t.Any] = []

    def resolve(*words: t.Any, **_: t.Any) -> list[t.Any]:
        asked.append(words)
        return []

    names: t.Any = state.transport
    names._names._resolver = resolve
    made = create(url="https://example.com/hooks")
    webhooks.subscriptions.update(made.id, owner="1", url="https://example.org/hooks")

    assert asked == []


def test_code_may_make_any_number_unless_it_asks_for_limits(make_app: t.Callable[..., Flask]) -> None:
    app = make_app(WEBHOOKS_SUBSCRIPTION_LIMIT=2, WEBHOOKS_CREATION_LIMIT=1)
    with app.app_context():
        create(limited=True)
        with pytest.raises(ThrottledError) as throttled:
            create(limited=True)
        assert throttled.value.code == "too_many_requests"
        create()
        with pytest.raises(SubscriptionError, match="limit"):
            create(limited=True)
        create()
        db.session.commit()
        assert len(webhooks.subscriptions.list(owner="1")) == 3


# ---- in the host's transaction ---------------------------------------------------------------------------


def test_it_is_there_if_the_host_commits(app: Flask, state: AppState) -> None:
    db.session.add(Client(owner="9", name="new"))
    db.session.flush()  # on SQLite the write lock is the host's from here on

    made = create(owner="9")

    assert there(state) == []
    db.session.commit()
    assert there(state) == [made.id]


def test_it_is_gone_if_the_host_rolls_back(app: Flask, state: AppState) -> None:
    create()
    db.session.rollback()

    assert there(state) == []


@pytest.mark.parametrize("is_undone", [True, False])
def test_a_savepoint_of_the_host_decides_too(app: Flask, state: AppState, is_undone: bool) -> None:
    told: list[str] = []

    def note(_: t.Any, subscription_id: str, **__: t.Any) -> None:
        told.append(subscription_id)

    with signals.subscription_changed.connected_to(note, app):
        outer = db.session.begin_nested()
        inner = db.session.begin_nested()
        made = create()
        inner.commit()
        beside = db.session.begin_nested()
        create(owner="3")
        beside.rollback()
        if is_undone:
            outer.rollback()
        else:
            outer.commit()
        kept = create(owner="2")
        assert told == []
        db.session.commit()

    expected = [kept.id] if is_undone else [made.id, kept.id]
    assert sorted(there(state)) == sorted(expected) == sorted(told)


def test_no_receiver_is_called_for_what_is_rolled_back(app: Flask) -> None:
    told: list[str] = []

    def note(_: t.Any, action: str, **__: t.Any) -> None:
        told.append(action)

    with signals.subscription_changed.connected_to(note, app):
        create()
        db.session.rollback()
        made = create()
        db.session.commit()
        webhooks.subscriptions.delete(made.id, owner="1")
        savepoint = db.session.begin_nested()
        create()
        savepoint.rollback()
        db.session.commit()

    assert told == ["created", "removed"]


def test_a_receiver_may_use_the_session_that_made_the_change(app: Flask) -> None:
    seen: list[int | None] = []

    def note(_: t.Any, **__: t.Any) -> None:
        seen.append(db.session.scalar(sa.select(sa.func.count()).select_from(models.Subscription)))

    with signals.subscription_changed.connected_to(note, app):
        create()
        db.session.commit()

    assert seen == [1]


def test_a_refusal_leaves_the_transaction_as_it_was(make_app: t.Callable[..., Flask]) -> None:
    app = make_app(WEBHOOKS_SUBSCRIPTION_LIMIT=1)
    with app.app_context():
        db.session.add(Note(text="before"))
        db.session.flush()
        create()
        with pytest.raises(SubscriptionError, match="limit"):
            create(limited=True)
        db.session.add(Note(text="after"))
        db.session.commit()

        assert db.session.scalars(sa.select(Note.text).order_by(Note.id)).all() == ["before", "after"]
        assert len(webhooks.subscriptions.list(owner="1")) == 1


def test_a_plain_sqlite_keeps_to_the_transaction_too(tmp_path: t.Any) -> None:
    """Its driver begins at the first write only, and would commit what a savepoint before that has done."""
    from tests.host import CATALOG, Base

    bare = SQLAlchemy(model_class=Base)
    app = Flask("bare", instance_path=str(tmp_path))
    app.config.update(
        SECRET_KEY="x", SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path}/bare.sqlite",
        WEBHOOKS_CATALOG=str(CATALOG), WEBHOOKS_ALLOW_HTTP=True, WEBHOOKS_ALLOWED_NETWORKS=["127.0.0.0/8"],
    )  # fmt: skip
    bare.init_app(app)
    Webhooks().init_app(app, bare)
    with app.app_context():
        bare.create_all()
        create()
        bare.session.rollback()
        assert webhooks.subscriptions.list(owner="1") == []
        made = create()
        bare.session.commit()
        bare.session.remove()
        assert [each.id for each in webhooks.subscriptions.list(owner=ALL_OWNERS)] == [made.id]
        bare.session.remove()
        bare.engine.dispose()


def test_it_hears_what_the_same_transaction_does(app: Flask) -> None:
    before = Client(owner="1", name="before")
    db.session.add(before)
    db.session.commit()
    client = Client(owner="1", name="new")
    db.session.add(client)
    db.session.flush()
    made = create(channels=["clients"])
    db.session.add(Invoice(owner="1", client=client))
    db.session.commit()

    found = db.session.scalars(sa.select(Delivery)).all()

    assert [each.subscription_id for each in found] == [made.id] * 2


def test_another_session_of_the_host_is_taken(app: Flask, state: AppState) -> None:
    with Session(db.engine) as other:
        made = create(session=other)
        assert webhooks.subscriptions.get(made.id, owner="1", session=other).id == made.id
        other.commit()

    assert there(state) == [made.id]


def test_a_session_on_another_database_is_refused(app: Flask) -> None:
    engine = sa.create_engine("sqlite://")
    make_transactional(engine)
    with Session(engine) as other, pytest.raises(ConfigurationError, match="Give a session"):
        create(session=other)
    engine.dispose()


IMPATIENT = {
    "postgresql": {"options": "-c lock_timeout=100ms"},
    "mysql": {"init_command": "SET innodb_lock_wait_timeout = 1"},
}


def test_others_wait_until_the_host_commits(app: Flask, state: AppState) -> None:
    """What looks at all subscriptions of an owner would not see this one."""
    if state.engine.dialect.name == "sqlite":
        pytest.skip("one writer at a time, whatever it writes")
    create()
    engine = sa.create_engine(state.engine.url, connect_args=IMPATIENT[state.engine.dialect.name])
    with Session(engine) as other:
        with pytest.raises(sa.exc.OperationalError):
            create(session=other)
        db.session.commit()
        other.rollback()
        create(session=other)
    engine.dispose()


def test_a_snapshot_that_is_older_than_the_lock_is_refused(make_app: t.Callable[..., Flask]) -> None:
    """Behind the lock the owner's subscriptions are counted: a snapshot from before it does not have all."""
    app = make_app(WEBHOOKS_SUBSCRIPTION_LIMIT=1)
    with app.app_context():
        if db.engine.dialect.name == "sqlite":
            pytest.skip("refuses every write of such a transaction")
        with Session(db.engine.execution_options(isolation_level="REPEATABLE READ")) as other:
            other.scalars(sa.select(Note)).all()  # its snapshot is made
            create()
            db.session.commit()
            with pytest.raises((SubscriptionChangedError, sa.exc.OperationalError)):
                create(limited=True, session=other)
            other.rollback()
            with pytest.raises(SubscriptionError, match="limit"):
                create(limited=True, session=other)


def test_outside_of_transactions_it_has_its_own(make_app: t.Callable[..., Flask]) -> None:
    app = make_app(SQLALCHEMY_ENGINE_OPTIONS={"isolation_level": "AUTOCOMMIT"})
    with app.app_context():
        if db.engine.dialect.name == "sqlite":
            pytest.skip("the tests' SQLite begins by itself")
        made = create()
        db.session.rollback()
        with pytest.raises(SubscriptionError):
            create(url="nowhere")
        assert [each.id for each in webhooks.subscriptions.list(owner="1")] == [made.id]


# ---- read, changed, removed ------------------------------------------------------------------------------


def test_a_change_says_what_it_is_by_now(app: Flask) -> None:
    made = create(headers={"X-A": "1"}, metadata={"a": 1})

    changed = webhooks.subscriptions.update(
        made.id,
        owner="1",
        version=made.version,
        events=[*made.events, "clients.*"],
        headers={"X-B": "2", "x-a": None},
        metadata={"b": 2},
        rate_limit=5,
    )

    assert [each["event"] for each in changed.events] == ["clients.*", "invoices.created"]
    assert changed.channels == ["clients"]
    assert changed.headers == ["X-B"]
    assert changed.metadata == {"a": 1, "b": 2}
    assert (changed.rate_limit, changed.url, changed.version) == (5.0, URL, 2)
    db.session.commit()
    read = webhooks.subscriptions.get(made.id, owner="1")
    assert dataclasses.replace(read, updated_at=changed.updated_at) == changed
    with pytest.raises(SubscriptionChangedError) as caught:
        webhooks.subscriptions.update(made.id, owner="1", version=1, description="late")
    assert caught.value.code == "changed"


def test_of_another_owner_there_is_none(app: Flask) -> None:
    made = create()
    calls: list[t.Callable[[], object]] = [
        lambda: webhooks.subscriptions.get(made.id, owner="2"),
        lambda: webhooks.subscriptions.update(made.id, owner="2", description="mine"),
        lambda: webhooks.subscriptions.pause(made.id, owner="2"),
        lambda: webhooks.subscriptions.enable(made.id, owner="2"),
        lambda: webhooks.subscriptions.rotate(made.id, owner="2"),
        lambda: webhooks.subscriptions.delete(made.id, owner="2"),
        lambda: webhooks.subscriptions.get("no id", owner=ALL_OWNERS),
    ]

    for call in calls:
        with pytest.raises(SubscriptionMissingError) as caught:
            call()
        assert caught.value.code == "not_found"
    assert webhooks.subscriptions.list(owner="2") == []
    assert webhooks.subscriptions.get(made.id, owner=ALL_OWNERS).version == 1


def test_lists_are_in_pages_newest_first(app: Flask) -> None:
    ids = [
        create(owner=owner, active=active).id for owner, active in [("1", True), ("2", True), ("1", False)]
    ]
    create(owner="1", environment="production")

    def keys(**values: t.Any) -> list[str]:
        return [each.id for each in webhooks.subscriptions.list(environment="staging", **values)]

    assert keys(owner=ALL_OWNERS) == ids[::-1]
    assert keys(owner=ALL_OWNERS, limit=2) == ids[:0:-1]
    assert keys(owner=ALL_OWNERS, before=ids[1]) == ids[:1]
    assert keys(owner="1") == [ids[2], ids[0]]
    assert keys(owner="1", active=True) == ids[:1]


def test_what_is_held_while_it_is_off_is_asked_for(app: Flask, state: AppState) -> None:
    made = create(events=["reports.ready"])
    db.session.commit()
    fill(state, [db.session.get_one(models.Subscription, made.id)], 3)
    db.session.commit()

    def states() -> set[str]:
        db.session.commit()
        return set(db.session.scalars(sa.select(Delivery.state)))

    assert not webhooks.subscriptions.pause(made.id, owner="1").active
    assert states() == {State.HELD.value}
    with pytest.raises(SubscriptionError) as caught:
        webhooks.subscriptions.enable(made.id, owner="1")
    assert set(caught.value.fields) == {"held"}
    assert webhooks.subscriptions.enable(made.id, owner="1", held="discard").active
    assert states() == {State.CANCELLED.value}


def test_a_rotation_keeps_the_old_secret_for_a_while(app: Flask, state: AppState) -> None:
    made = create()
    turned = webhooks.subscriptions.rotate(made.id, owner="1", overlap=timedelta(hours=1))
    db.session.commit()

    row = db.session.get_one(models.Subscription, made.id)
    in_force = [each.text for _, each in subscriptions.reveal(state, row, datetime.now(UTC))]

    assert in_force == [turned.secret, made.secret]
    assert turned.version == made.version + 1
    with pytest.raises(SubscriptionError) as caught:
        webhooks.subscriptions.rotate(made.id, owner="1", overlap=timedelta(days=8))
    assert set(caught.value.fields) == {"overlap"}


def test_what_is_removed_is_gone_when_the_host_commits(app: Flask, state: AppState) -> None:
    made = create()
    db.session.commit()
    webhooks.subscriptions.delete(made.id, owner="1")
    db.session.rollback()
    assert webhooks.subscriptions.get(made.id, owner="1").active
    webhooks.subscriptions.delete(made.id, owner="1", version=1)
    db.session.commit()

    with pytest.raises(WebhooksError):
        webhooks.subscriptions.get(made.id, owner=ALL_OWNERS)
    assert webhooks.subscriptions.list(owner=ALL_OWNERS) == []
