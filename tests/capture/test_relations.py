"""Relationships that differ from their foreign keys, cascades, and attributes that must not be loaded."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import defer, raiseload

from flask_webhooks.state import AppState
from tests.capture.conftest import NOWHERE, capturing, counting, kinds
from tests.capture.linked_models import CATALOG, Author, Book, Car, Item, Order, Page, Shelf, Wheel, db
from tests.host import Client, Invoice, Line
from tests.host import db as host_db
from tests.stage import recorded, subscribe

S = db.session


@pytest.fixture
def linked(database_url: str, tmp_path: Path) -> t.Iterator[AppState]:
    """The app with these models, inside its context; both owners listen to everything."""
    with capturing(db, CATALOG, database_url, tmp_path) as state:
        for owner in ("1", "2"):
            subscribe(state, NOWHERE, "*", owner=owner, includes=["changes", "order", "author"])
        yield state


def commit(state: AppState) -> list[tuple[str, str | None, str]]:
    """Commit, and return event, key and owner of what that recorded."""
    before = len(recorded(state))
    S.commit()
    return sorted((each.event, each.entity_id, each.owner) for each in recorded(state)[before:])


def last(state: AppState, event: str) -> dict[str, t.Any]:
    """Data and extras of the newest message of an event."""
    found = [each for each in recorded(state) if each.event == event][-1]
    return {**json.loads(found.data), **json.loads(found.extras or "{}")}


def save(*objects: t.Any) -> None:
    S.add_all(objects)
    S.commit()


class TestAKeyThatIsSet:
    def test_owner_include_and_touches_follow_it(self, linked: AppState) -> None:
        save(Order(tenant=1, number=1, owner="1", items=[Item(id=1)]), Order(tenant=1, number=2, owner="2"))
        item = S.get_one(Item, 1)
        assert item.order is not None
        assert item.order.owner == "1"

        item.order_number = 2

        assert commit(linked) == [
            ("items.created", "1", "2"),
            ("items.deleted", "1", "1"),
            ("orders.updated", "1,1", "1"),
            ("orders.updated", "1,2", "2"),
        ]
        assert last(linked, "items.created")["order"] == {"tenant": 1, "number": 2, "owner": "2"}
        assert last(linked, "items.deleted")["order"] == {"tenant": 1, "number": 1, "owner": "1"}

    def test_there_and_back(self, linked: AppState) -> None:
        save(Order(tenant=1, number=1, owner="1", items=[Item(id=1)]), Order(tenant=1, number=2, owner="2"))
        item = S.get_one(Item, 1)
        item.order_number = 2
        S.flush()
        S.expire(item, ["order"])
        assert item.order is not None
        assert item.order.owner == "2"

        item.order_number, item.name = 1, "x"

        assert commit(linked) == [("items.updated", "1", "1"), ("orders.updated", "1,1", "1")]

    def test_to_nothing(self, linked: AppState) -> None:
        save(Car(id=1, wheels=[Wheel(id=1)]))
        wheel = S.get_one(Wheel, 1)
        assert wheel.car is not None

        wheel.car_id = None

        assert commit(linked) == [("cars.updated", "1", "1")]

    def test_many_cost_one_statement_for_their_new_parents(self, linked: AppState) -> None:
        save(
            Order(tenant=1, number=1, items=[Item(id=number) for number in range(1, 21)]),
            *(Order(tenant=1, number=number) for number in range(2, 22)),
        )
        items = S.scalars(sa.select(Item).order_by(Item.id)).all()
        for item in items:
            assert item.order is not None
            item.order_number = item.id + 1
        S.flush()
        with counting(linked.engine) as sent:
            S.commit()

        assert kinds(sent).count("SELECT order") <= 3

    def test_a_joined_table_s_key(self, linked: AppState) -> None:
        save(Car(id=1, wheels=[Wheel(id=1)]), Car(id=2))

        S.get_one(Wheel, 1).car_id = 2

        assert [each for each in commit(linked) if each[0] == "cars.updated"] == [
            ("cars.updated", "1", "1"),
            ("cars.updated", "2", "1"),
        ]


class TestTheOwnerOfWhatIsGone:
    """By way of its order: whose it was before the transaction."""

    @pytest.mark.parametrize("is_flushed", [True, False])
    @pytest.mark.parametrize("is_loaded", [True, False])
    def test_moved_before(self, linked: AppState, is_flushed: bool, is_loaded: bool) -> None:
        save(Order(tenant=1, number=1, owner="1", items=[Item(id=1)]), Order(tenant=1, number=2, owner="2"))
        item, other = S.get_one(Item, 1), S.get_one(Order, (1, 2))
        assert not is_loaded or item.order
        with S.no_autoflush:
            item.order = other
            if is_flushed:
                S.flush()
            S.delete(item)

        assert [each for each in commit(linked) if each[0] == "items.deleted"] == [
            ("items.deleted", "1", "1")
        ]

    def test_moved_afterwards(self, linked: AppState) -> None:
        save(Order(tenant=1, number=1, owner="1", items=[Item(id=1)]), Order(tenant=1, number=2, owner="2"))
        item = S.get_one(Item, 1)
        S.delete(item)
        S.flush()
        item.order = S.get_one(Order, (1, 2))

        assert commit(linked) == [("items.deleted", "1", "1"), ("orders.updated", "1,1", "1")]


class TestWhatGoesWithAnother:
    def test_an_orphans_event_has_its_deferred_columns_and_includes(self, linked: AppState) -> None:
        save(
            Shelf(
                id=1, books=[Book(id=1, blurb="good", author=Author(name="A"), pages=[Page(id=1, text="p")])]
            )
        )
        shelf = S.get_one(Shelf, 1)
        shelf.books.clear()

        assert commit(linked) == [("books.deleted", "1", "1"), ("pages.deleted", "1", "1")]
        assert last(linked, "books.deleted")["blurb"] == "good"
        assert last(linked, "books.deleted")["author"]["name"] == "A"
        assert last(linked, "pages.deleted")["text"] == "p"

    @pytest.mark.parametrize("expired", [False, True])
    def test_an_orphan_belongs_to_whom_its_parent_belonged(self, linked: AppState, expired: bool) -> None:
        save(Order(tenant=1, number=1, owner="2", items=[Item(id=1), Item(id=2)]))
        order = S.get_one(Order, (1, 1))
        item = order.items[0]
        if expired:
            S.expire(item)
        order.items.remove(item)
        S.flush()
        S.expire_all()

        assert commit(linked) == [("items.deleted", str(1), "2"), ("orders.updated", "1,1", "2")]

    @pytest.mark.parametrize("is_flushed", [True, False])
    @pytest.mark.parametrize("is_loaded", [True, False])
    def test_an_include_behind_what_goes(self, linked: AppState, is_flushed: bool, is_loaded: bool) -> None:
        subscribe(linked, NOWHERE, "shelves.*", owner="1", includes=["authors"])
        save(Shelf(id=1, books=[Book(author=Author(name="A")), Book(author=Author(name="B"))]))
        S.expunge_all()
        shelf = S.get_one(Shelf, 1)
        assert not is_loaded or shelf.books
        S.delete(shelf)
        if is_flushed:
            S.flush()
        S.commit()

        assert last(linked, "shelves.deleted")["authors"] == ["A", "B"]

    def test_rows_that_the_database_cascades_to_have_no_event(self, state: AppState, listening: None) -> None:
        session = host_db.session
        session.add(invoice := Invoice(id=1, owner="1"))
        session.commit()
        assert invoice.lines == []
        session.add(Line(invoice_id=1))  # of which the invoice knows nothing
        session.flush()
        session.delete(invoice)
        session.flush()
        session.expire_all()
        session.commit()

        assert [message.event for message in recorded(state)] == ["invoices.created", "invoices.deleted"]

    def test_rows_that_plain_sql_deletes_have_no_event(self, state: AppState) -> None:
        subscribe(state, NOWHERE, "invoices.*", includes=["client"])
        session = host_db.session
        session.add_all([Invoice(id=1, owner="1"), Invoice(id=2, owner="1")])
        session.flush()
        session.execute(sa.delete(Invoice.__table__).where(Invoice.__table__.c.id == 1))
        session.expire_all()
        session.commit()

        assert [message.entity_id for message in recorded(state)] == ["2"]

    def test_an_orphan_whose_parent_goes_too(self, linked: AppState) -> None:
        save(Order(tenant=1, number=1, owner="2", items=[Item(id=1)]))
        order = S.get_one(Order, (1, 1))
        order.items.clear()
        S.delete(order)

        assert commit(linked) == [("items.deleted", "1", "2"), ("orders.deleted", "1,1", "2")]

    def test_a_cascade(self, linked: AppState) -> None:
        save(Shelf(id=1, books=[Book(id=1, blurb="good", pages=[Page(id=1)])]))
        S.delete(S.get_one(Shelf, 1))

        assert commit(linked) == [
            ("books.deleted", "1", "1"),
            ("pages.deleted", "1", "1"),
            ("shelves.deleted", "1", "1"),
        ]

    @pytest.mark.parametrize("expired", [False, True])
    def test_a_child_that_loses_its_key(self, state: AppState, listening: None, expired: bool) -> None:
        host_db.session.add(Client(id=1, owner="1", name="c", invoices=[Invoice(id=1, owner="1")]))
        host_db.session.commit()
        client = host_db.session.get_one(Client, 1)
        invoice = client.invoices[0]
        if expired:
            host_db.session.expire(invoice)
        host_db.session.delete(client)
        host_db.session.commit()

        assert last(state, "invoices.updated")["changes"]["client_id"] == {"from": 1, "to": None}


class TestAListenerOfTheHost:
    def test_that_sets_what_was_expired_while_the_row_is_written(self, linked: AppState) -> None:
        save(Shelf(id=1, books=[Book(id=1)]))
        S.expire(book := S.get_one(Book, 1))
        book.title = "finished"

        assert ("books.done", "1", "1") in commit(linked)
        assert last(linked, "books.updated")["changes"]["state"] == {"from": "new", "to": "done"}

    def test_that_sets_what_was_expired_before_the_flush(self, linked: AppState) -> None:
        save(Shelf(id=1, books=[Book(id=1)]))
        S.expire(book := S.get_one(Book, 1))

        def before_flush(session: t.Any, *_: t.Any) -> None:
            if any(isinstance(obj, Author) for obj in session.new):
                book.state = "done"

        sa.event.listen(S(), "before_flush", before_flush)
        S.add(Author(name="A"))

        assert commit(linked) == [("books.done", "1", "1"), ("books.updated", "1", "1")]
        assert last(linked, "books.updated")["changes"] == {"state": {"from": "new", "to": "done"}}

    def test_that_deletes_before_the_flush(self, linked: AppState) -> None:
        save(Shelf(id=1, books=[Book(id=1, blurb="good", author=Author(name="A"))]))
        S.expire(book := S.get_one(Book, 1))

        def before_flush(session: t.Any, *_: t.Any) -> None:
            if any(isinstance(obj, Author) for obj in session.new):
                session.delete(book)

        sa.event.listen(S(), "before_flush", before_flush)
        S.add(Author(name="B"))

        assert commit(linked) == [("books.deleted", "1", "1")]
        assert last(linked, "books.deleted")["blurb"] == "good"
        assert last(linked, "books.deleted")["author"]["name"] == "A"


class TestWhatTheHostForbidsItselfToLoad:
    @pytest.fixture(autouse=True)
    def invoice(self, state: AppState) -> None:
        host_db.session.add(Invoice(id=1, owner="1", number="n", lines=[Line(id=1)]))
        host_db.session.commit()
        host_db.session.expunge_all()

    def test_a_touched_parent(self, state: AppState, listening: None) -> None:
        line = host_db.session.scalars(sa.select(Line).options(raiseload("*"))).one()
        line.text = "x"
        host_db.session.commit()

        assert recorded(state)[-1].event == "invoices.updated"

    def test_without_a_subscription(self, state: AppState) -> None:
        line = host_db.session.scalars(sa.select(Line).options(raiseload("*"))).one()
        line.text = "x"
        host_db.session.commit()

        assert recorded(state) == []

    def test_an_include(self, state: AppState) -> None:
        subscribe(state, NOWHERE, "invoices.updated", includes=["lines", "client"])
        invoice = host_db.session.scalars(sa.select(Invoice).options(raiseload("*"))).one()
        invoice.note = "x"
        host_db.session.commit()

        assert [line["id"] for line in last(state, "invoices.updated")["lines"]] == [1]

    def test_a_column(self, state: AppState, listening: None) -> None:
        options = defer(Invoice.number, raiseload=True)
        invoice = host_db.session.scalars(sa.select(Invoice).options(options)).one()
        invoice.note = "x"
        host_db.session.commit()

        assert last(state, "invoices.updated")["number"] == "n"

    def test_a_deletion(self, state: AppState) -> None:
        subscribe(state, NOWHERE, "invoices.deleted", includes=["lines", "client"])
        invoice = host_db.session.scalars(sa.select(Invoice).options(raiseload(Invoice.client))).one()
        host_db.session.delete(invoice)
        host_db.session.commit()

        assert last(state, "invoices.deleted")["client"] is None
