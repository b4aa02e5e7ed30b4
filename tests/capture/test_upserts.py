"""Upserts: which rows were inserted, which were updated, and their old values."""

from __future__ import annotations

import json
import threading
import typing as t
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from flask_webhooks.state import AppState
from tests.capture.conftest import NOWHERE, SERVERS, capturing, changes, counting, events
from tests.capture.stock import CATALOG, Seal, Ware, db, upsert
from tests.stage import recorded, subscribe, wait_until

NUMBER = ["owner", "number"]
LITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
POSTGRES = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
BOTH = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)


def sets_count(row: t.Any) -> dict[str, t.Any]:
    """The new count, and nothing else."""
    return {"amount": row.amount}


@pytest.fixture
def stock(database_url: str, tmp_path: Path) -> t.Iterator[AppState]:
    """An app with wares, inside its context: number 1 has a count of 10."""
    with capturing(db, CATALOG, database_url, tmp_path, WEBHOOKS_ON_ERROR="raise") as state:
        with Session(state.engine, info={"webhooks": False}) as session:
            session.add(Ware(id=101, number=1, count=10, code="a", place="x", name="old"))
            session.commit()
        yield state


@pytest.fixture
def listening(stock: AppState) -> None:
    """Somebody wants to know all of them."""
    subscribe(stock, NOWHERE, "wares.*", includes=["changes"])


def recorded_events(state: AppState) -> list[tuple[str, t.Any, t.Any]]:
    """Event, number and changed count of all messages."""
    return sorted(
        (message.event.partition(".")[2], json.loads(message.data)["number"], changes(message).get("count"))
        for message in recorded(state)
    )


ROW, NEW = {"number": 1, "count": 7}, {"number": 2, "count": 8}
CREATED, UPDATED = ("created", 2, None), ("updated", 1, [10, 7])


@pytest.mark.usefixtures("listening")
class TestUpdating:
    def test_values(self, stock: AppState, database_url: str) -> None:
        for row in (ROW, NEW):
            db.session.execute(upsert(database_url, NUMBER, sets_count).values(row))
        db.session.commit()

        assert recorded_events(stock) == [CREATED, UPDATED]

    @pytest.mark.parametrize("in_bulk", [True, False])
    def test_a_row_that_the_transaction_has_deleted(
        self, stock: AppState, database_url: str, in_bulk: bool
    ) -> None:
        if in_bulk:
            db.session.execute(sa.delete(Ware).where(Ware.id == 101))
        else:
            db.session.delete(db.session.get_one(Ware, 101))
        row = {"id": 101, "number": 1, "count": 7, "code": "a", "place": "x", "name": "old"}
        db.session.execute(upsert(database_url, NUMBER, sets_count).values(row))
        db.session.commit()

        assert recorded_events(stock) == [UPDATED]

    def test_many_values(self, stock: AppState, database_url: str) -> None:
        db.session.execute(upsert(database_url, NUMBER, sets_count).values([ROW, NEW]))
        db.session.commit()

        assert recorded_events(stock) == [CREATED, UPDATED]

    def test_a_mapping_and_a_list(self, stock: AppState, database_url: str) -> None:
        statement = upsert(database_url, NUMBER, sets_count)
        db.session.execute(statement, ROW)
        db.session.execute(statement, [NEW, {"number": 3, "count": 1}])
        db.session.commit()

        assert recorded_events(stock) == [CREATED, ("created", 3, None), UPDATED]

    def test_raw(self, stock: AppState, database_url: str) -> None:
        raw = [{"owner": "1", "number": row["number"], "amount": row["count"]} for row in (ROW, NEW)]
        db.session.execute(
            upsert(database_url, NUMBER, sets_count), raw, execution_options={"dml_strategy": "raw"}
        )
        db.session.commit()

        assert recorded_events(stock) == [CREATED, UPDATED]

    def test_entities_that_are_returned(self, stock: AppState, database_url: str) -> None:
        ware = db.session.get_one(Ware, 101)
        found = db.session.scalars(
            upsert(database_url, NUMBER, sets_count).returning(Ware),
            [ROW, NEW],
            execution_options={"populate_existing": True},
        ).all()

        assert sorted((each.number, each.count) for each in found) == [(1, 7), (2, 8)]
        assert ware.count == 7
        db.session.commit()
        assert recorded_events(stock) == [CREATED, UPDATED]

    def test_from_a_select(self, stock: AppState, database_url: str) -> None:
        one = sa.select(sa.literal("1"), Ware.number + 1, Ware.count - 2, sa.true()).where(Ware.id == 101)
        other = sa.select(sa.literal("1"), Ware.number, Ware.count - 3, sa.true()).where(Ware.id == 101)
        names = ["owner", "number", "amount", "is_on_sale"]
        for source in (one, other):
            statement = upsert(database_url, NUMBER, sets_count).from_select(names, source)
            assert db.session.execute(statement).rowcount in (1, 2)  # type: ignore[attr-defined]
        db.session.commit()

        assert recorded_events(stock) == [CREATED, UPDATED]

    def test_from_a_select_that_gives_another_value_each_time(
        self, stock: AppState, database_url: str
    ) -> None:
        """As a copy within the database does that makes its keys with `random()`: no row is met by it."""
        chance = sa.func.rand() if stock.engine.dialect.name == "mysql" else sa.func.random()
        names = ["owner", "number", "amount", "is_on_sale"]
        for number, less in ((Ware.number + 1, 2), (Ware.number, 3)):
            amount = Ware.count - less + chance * 0
            source = sa.select(sa.literal("1"), number, amount, sa.true()).where(Ware.id == 101)
            db.session.execute(upsert(database_url, NUMBER, sets_count).from_select(names, source))
        db.session.commit()

        assert recorded_events(stock) == [CREATED, UPDATED]

    def test_by_the_primary_key(self, stock: AppState, database_url: str) -> None:
        db.session.execute(upsert(database_url, ["id"], sets_count), [{"id": 101, **ROW}, {"id": 102, **NEW}])
        db.session.commit()

        assert recorded_events(stock) == [CREATED, UPDATED]

    def test_rows_of_which_some_leave_the_key_to_the_database(
        self, stock: AppState, database_url: str
    ) -> None:
        db.session.execute(
            upsert(database_url, ["code"], sets_count),
            [{"code": "a", **ROW}, {"code": "a", **ROW, "count": 6}, {"code": None, **NEW}, {"number": 3}],
        )
        db.session.commit()

        assert recorded_events(stock) == [CREATED, ("created", 3, None), ("updated", 1, [10, 6])]

    def test_the_same_row_twice(self, stock: AppState, database_url: str) -> None:
        statement = upsert(database_url, NUMBER, lambda row: {"amount": Ware.count + row.amount})
        db.session.execute(statement, [ROW, ROW, NEW, NEW])
        db.session.commit()

        assert recorded_events(stock) == [CREATED, ("updated", 1, [10, 24])]
        assert db.session.scalar(sa.select(Ware.count).where(Ware.number == 2)) == 16

    def test_what_changes_nothing_has_no_event(self, stock: AppState, database_url: str) -> None:
        db.session.execute(upsert(database_url, NUMBER, sets_count).values(number=1, count=10))
        db.session.commit()

        assert events(stock) == []

    @BOTH
    def test_where(self, stock: AppState, database_url: str) -> None:
        statement = upsert(database_url, NUMBER, sets_count, where=Ware.name != "old")
        db.session.execute(statement, [ROW, NEW])
        db.session.commit()

        assert recorded_events(stock) == [CREATED]

    @BOTH
    def test_the_target_of_a_partial_index(self, stock: AppState, database_url: str) -> None:
        flavour = postgresql if "postgresql" in database_url else sqlite
        statement = flavour.insert(Ware)
        statement = statement.on_conflict_do_update(  # type: ignore[attr-defined]
            index_elements=["place"], index_where=sa.text("is_on_sale"), set_={"amount": 7}
        )
        with Session(stock.engine, info={"webhooks": False}) as session:
            session.add(Ware(number=5, place="x", is_on_sale=False))
            session.commit()
        db.session.execute(statement.values(number=9, place="x"))
        db.session.commit()

        assert recorded_events(stock) == [UPDATED]

    @POSTGRES
    def test_a_constraint_by_its_name(self, stock: AppState) -> None:
        for name in ("one_number", "ware_code_key"):
            statement = postgresql.insert(Ware).on_conflict_do_update(constraint=name, set_={"amount": 7})
            db.session.execute(statement.values(number=1, code="a"))
        db.session.commit()

        assert recorded_events(stock) == [UPDATED]

    @LITE
    def test_no_target_at_all(self, stock: AppState) -> None:
        statement = sqlite.insert(Ware).on_conflict_do_update(set_={"amount": 7})
        db.session.execute(statement.values(number=99, code="a"))
        db.session.commit()

        assert recorded_events(stock) == [UPDATED]

    def test_a_default_of_the_database_and_a_trigger(self, stock: AppState, database_url: str) -> None:
        db.session.execute(upsert(database_url, NUMBER, sets_count).values(number=2))
        db.session.commit()

        [message] = recorded(stock)
        assert json.loads(message.data)["count"] == 5

    def test_after_other_changes_of_the_transaction(self, stock: AppState, database_url: str) -> None:
        db.session.get_one(Ware, 101).count = 11
        db.session.add(Ware(number=2, count=1))
        db.session.execute(upsert(database_url, NUMBER, sets_count), [ROW, NEW])
        db.session.commit()

        assert recorded_events(stock) == [CREATED, UPDATED]

    def test_a_savepoint_that_is_rolled_back(self, stock: AppState, database_url: str) -> None:
        nested = db.session.begin_nested()
        db.session.execute(upsert(database_url, NUMBER, sets_count), [ROW, NEW])
        nested.rollback()
        db.session.commit()

        assert events(stock) == []

    def test_a_row_that_goes_to_another_owner(self, stock: AppState, database_url: str) -> None:
        subscribe(stock, NOWHERE, "wares.*", owner="2")
        db.session.execute(
            upsert(database_url, ["id"], lambda row: {"owner": row.owner}).values(id=101, owner="2", number=1)
        )
        db.session.commit()

        assert [(message.event, message.owner) for message in recorded(stock)] == [
            ("wares.deleted", "1"),
            ("wares.created", "2"),
        ]

    def test_what_a_plain_table_says_is_not_seen(self, stock: AppState) -> None:
        db.session.execute(Ware.__table__.insert(), {"owner": "1", "number": 2, "is_on_sale": True})
        db.session.commit()

        assert events(stock) == []


@pytest.mark.usefixtures("listening")
@BOTH
class TestDoingNothing:
    @pytest.mark.parametrize("target", [NUMBER, ()])
    def test_rows_that_are_there_tell_nothing(
        self, stock: AppState, database_url: str, target: t.Any
    ) -> None:
        statement = upsert(database_url, target, None)
        db.session.execute(statement, [ROW, NEW])
        db.session.execute(statement.values(ROW))
        db.session.execute(statement.values(number=3))
        db.session.commit()

        assert recorded_events(stock) == [CREATED, ("created", 3, None)]

    def test_from_a_select(self, stock: AppState, database_url: str) -> None:
        for step in (0, 1):
            source = sa.select(sa.literal("1"), Ware.number + step, sa.true()).where(Ware.number == 1)
            db.session.execute(
                upsert(database_url, NUMBER, None).from_select(["owner", "number", "is_on_sale"], source)
            )
        db.session.commit()

        assert recorded_events(stock) == [CREATED]

    def test_an_unknown_index(self, stock: AppState, database_url: str) -> None:
        """A key that only a migration has made, over an expression."""
        db.session.execute(sa.text("CREATE UNIQUE INDEX one_name ON ware (lower(name))"))
        db.session.commit()
        statement = upsert(database_url, (), None)
        db.session.execute(statement.values(number=2, name="OLD"))
        db.session.execute(statement, [{"number": 3, "name": "Old"}, {"number": 4, "name": "new"}])
        db.session.commit()

        assert recorded_events(stock) == [("created", 4, None)]


@LITE
def test_or_ignore_of_sqlite(stock: AppState, listening: None) -> None:
    db.session.execute(sa.insert(Ware).prefix_with("OR IGNORE"), [ROW, NEW])
    db.session.commit()

    assert recorded_events(stock) == [CREATED]


UNKNOWN: dict[str, tuple[str, t.Any]] = {
    "OR REPLACE": ("sqlite", sa.insert(Ware).prefix_with("OR REPLACE").values(number=2)),
    "IGNORE": ("mariadb", sa.insert(Ware).prefix_with("IGNORE").values(number=2)),
    "expression": (
        "postgresql",
        postgresql.insert(Ware)
        .values(number=2, name="b")
        .on_conflict_do_update(index_elements=[sa.func.lower(Ware.name)], set_={"amount": 7}),
    ),
    "constraint": (
        "postgresql",
        postgresql.insert(Ware).values(number=2).on_conflict_do_update(constraint="late", set_={"amount": 7}),
    ),
}


@pytest.mark.usefixtures("listening")
@pytest.mark.parametrize(
    ("words", "database_url"),
    [(words, each[0]) for words, each in UNKNOWN.items()],
    indirect=["database_url"],
)
def test_what_cannot_be_known_is_let_through_with_one_warning(
    stock: AppState, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    with db.engine.begin() as connection:
        if words in ("expression", "constraint"):
            connection.execute(sa.text("CREATE UNIQUE INDEX one_name ON ware (lower(name))"))
            connection.execute(sa.text("ALTER TABLE ware ADD CONSTRAINT late UNIQUE (number)"))
    for _ in range(2):
        db.session.execute(UNKNOWN[words][1])
        db.session.rollback()
    db.session.execute(UNKNOWN[words][1])
    db.session.commit()

    assert events(stock) == []
    assert len(db.session.scalars(sa.select(Ware)).all()) == 2
    [warning] = [each for each in caplog.records if "bulk.not_captured" in each.message]
    assert all(name in warning.message for name in ("muted()", "emit_many", "WEBHOOKS_BULK"))


@pytest.mark.usefixtures("listening")
@pytest.mark.parametrize("database_url", SERVERS, indirect=True)
class TestOthersAtTheSameTime:
    @pytest.mark.parametrize("form", ["values", "a list", "from a select"])
    def test_a_row_that_is_committed_after_the_look_is_an_update(
        self, stock: AppState, database_url: str, form: str
    ) -> None:
        done = []

        def commit(connection: sa.Connection, _: t.Any, words: str, *__: t.Any) -> None:
            if words.startswith("INSERT INTO ware") and not done:
                done.append(words)
                with Session(stock.engine, info={"webhooks": False}) as other:
                    other.add(Ware(number=2, count=20))
                    other.commit()

        statement = upsert(database_url, NUMBER, sets_count)
        source = sa.select(sa.literal("1"), sa.literal(2), sa.literal(8), sa.true())
        sa.event.listen(stock.engine, "before_cursor_execute", commit)
        if form == "values":
            db.session.execute(statement.values(NEW))
        elif form == "a list":
            db.session.execute(statement, [NEW, {"number": 3}])
        else:
            db.session.execute(statement.from_select(["owner", "number", "amount", "is_on_sale"], source))
        db.session.commit()

        assert recorded_events(stock)[-1] == ("updated", 2, [20, 8])
        assert len(recorded_events(stock)) == (2 if form == "a list" else 1)

    def test_a_row_that_another_commits_while_the_statement_waits_for_it(
        self, stock: AppState, database_url: str
    ) -> None:
        def work() -> None:
            with Session(stock.engine) as session:
                session.execute(upsert(database_url, NUMBER, sets_count), [NEW])
                session.commit()

        with Session(stock.engine, info={"webhooks": False}) as other:
            other.add(Ware(number=2, count=20))
            other.flush()
            thread = threading.Thread(target=work)
            thread.start()
            wait_until(lambda: is_anybody_waiting(stock), 30)
            other.commit()
            thread.join(30)

        assert recorded_events(stock) == [("updated", 2, [20, 8])]

    def test_an_empty_place_is_not_locked(self, stock: AppState, database_url: str) -> None:
        """Two that look where nothing is yet and then insert would wait for each other for ever."""
        with Session(stock.engine) as one, Session(stock.engine) as other:
            one.execute(upsert(database_url, NUMBER, sets_count).values(number=2, count=1))
            other.execute(upsert(database_url, NUMBER, sets_count).values(number=3, count=1))
            one.execute(upsert(database_url, NUMBER, sets_count).values(number=4, count=1))
            other.commit()
            one.commit()

        assert [each[:2] for each in recorded_events(stock)] == [
            ("created", 2),
            ("created", 3),
            ("created", 4),
        ]


def is_anybody_waiting(state: AppState) -> bool:
    """Whether a transaction waits for a lock."""
    with state.engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            asked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            return bool(connection.exec_driver_sql(asked).scalar())
        # `innodb_trx` is a copy that is refreshed only if it was not read for 0.1 s: it cannot be polled.
        return "LOCK WAIT" in connection.exec_driver_sql("SHOW ENGINE INNODB STATUS").one()[2]


@pytest.mark.usefixtures("listening")
@POSTGRES
def test_what_another_inserts_meanwhile_is_not_ours(stock: AppState, database_url: str) -> None:
    """ON CONFLICT DO NOTHING leaves it as it is, and it was not there when we looked."""
    done = []

    def commit(connection: sa.Connection, _: t.Any, words: str, *__: t.Any) -> None:
        if words.startswith("INSERT INTO ware") and not done:
            done.append(words)
            with Session(stock.engine, info={"webhooks": False}) as other:
                other.add(Ware(number=2, count=20))
                other.commit()

    sa.event.listen(stock.engine, "before_cursor_execute", commit)
    db.session.execute(upsert(database_url, NUMBER, None).values(NEW))
    db.session.commit()

    assert events(stock) == []


@pytest.mark.usefixtures("listening")
@pytest.mark.parametrize("database_url", ["mariadb"], indirect=True)
def test_a_database_that_returns_nothing(
    stock: AppState, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """MySQL: rows are found by their values."""
    stock.engine.dialect.insert_returning = False
    statement = upsert(database_url, NUMBER, sets_count)
    db.session.execute(statement, [ROW, NEW])
    db.session.commit()
    assert recorded_events(stock) == [CREATED, UPDATED]

    source = sa.select(sa.literal("1"), Ware.number, Ware.count, sa.true()).where(Ware.number == 1)
    db.session.execute(statement.from_select(["owner", "number", "amount", "is_on_sale"], source))
    db.session.commit()
    assert "cannot return them" in caplog.text


@pytest.mark.usefixtures("listening")
def test_what_it_costs(stock: AppState, database_url: str) -> None:
    """Look, lock and read, run it, look again, read again: however many rows there are."""
    statement = upsert(database_url, NUMBER, sets_count)
    with counting(stock.engine) as sent:
        db.session.execute(statement, [ROW, {"number": 1, "count": 8}])

    asked = [each.split()[0] for each in sent if " ware" in each and not each.startswith("DELETE")]
    assert asked == ["SELECT", "SELECT", "INSERT", "SELECT", "SELECT"]


@pytest.mark.usefixtures("listening")
@pytest.mark.parametrize("database_url", SERVERS, indirect=True)
@pytest.mark.parametrize("form", ["update", "upsert"])
def test_values_that_another_has_given_a_row_already_change_nothing(
    stock: AppState, database_url: str, form: str
) -> None:
    """MariaDB would show the row as its snapshot has it: a statement that changes nothing makes no newer one."""
    statement: t.Any = sa.update(Ware).where(Ware.number == 1).values(count=7)
    if form == "upsert":
        statement = upsert(database_url, NUMBER, sets_count).values(ROW)
    level = "READ COMMITTED" if "postgresql" in database_url else "REPEATABLE READ"
    with Session(stock.engine.execution_options(isolation_level=level)) as session:
        session.scalars(sa.select(Ware.count)).all()
        with Session(stock.engine, info={"webhooks": False}) as other:
            other.execute(sa.update(Ware).values(count=7))
            other.commit()
        session.execute(statement)
        session.commit()

    assert events(stock) == []


@pytest.mark.usefixtures("listening")
@LITE
def test_a_trigger_has_the_last_word(stock: AppState, database_url: str) -> None:
    with stock.engine.begin() as connection:
        for verb in ("INSERT", "UPDATE"):
            connection.exec_driver_sql(
                f"CREATE TRIGGER after_{verb} AFTER {verb} ON ware WHEN new.amount < 100 BEGIN "
                "UPDATE ware SET amount = amount + 100 WHERE id = new.id; END"
            )
    db.session.execute(upsert(database_url, NUMBER, sets_count), [ROW, NEW])
    db.session.commit()

    assert recorded_events(stock) == [CREATED, ("updated", 1, [10, 107])]
    assert sorted(json.loads(message.data)["count"] for message in recorded(stock)) == [107, 108]


class TestOtherTypes:
    """A host's own types: what they cannot read or take is the host's affair."""

    def test_a_row_that_cannot_be_read_is_let_through(
        self, database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with capturing(db, CATALOG.replace("stock:Ware", "stock:Seal"), database_url, tmp_path) as state:
            subscribe(state, NOWHERE, "wares.*")
            with state.engine.begin() as connection:
                connection.execute(sa.text("INSERT INTO seal (id, owner, text) VALUES (1, '1', 'broken')"))
            statement = upsert(database_url, ["id"], lambda row: {"text": row.text}, model=Seal)
            db.session.execute(statement, [{"id": 1, "text": "whole"}])
            db.session.commit()

            assert db.session.scalars(sa.select(Seal.text)).all() == ["whole"]
            assert events(state) == []
            assert "Seal.text cannot be read" in caplog.text

    def test_a_value_that_cannot_be_sent_fails_as_without_us(
        self, stock: AppState, database_url: str
    ) -> None:
        found = []
        for is_in in (True, False):
            statement = upsert(database_url, ["code"], sets_count).values(number=1, code=object())
            with Session(stock.engine, info={"webhooks": is_in}) as session:
                with pytest.raises(sa.exc.StatementError) as caught:
                    session.execute(statement)
                found.append(caught.type)

        assert found[0] is found[1]
