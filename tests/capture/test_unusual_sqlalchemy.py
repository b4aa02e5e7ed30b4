"""Unusual features of SQLAlchemy: the result of the host's code is the same with and without capture."""

from __future__ import annotations

import contextlib
import json
import typing as t
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import SAWarning
from sqlalchemy.orm import ORMExecuteState, Session, load_only, with_loader_criteria

from flask_webhooks.errors import CatalogError, EmitError
from flask_webhooks.state import AppState
from tests.capture import unusual_models
from tests.capture.conftest import (
    NOWHERE,
    Doorless,
    capturing,
    changes,
    counting,
    events,
    kinds,
    last_changes,
)
from tests.capture.unusual_models import (
    Box,
    Chief,
    Entry,
    Feed,
    Gate,
    Hand,
    Hook,
    Keeper,
    Nail,
    Peg,
    Pin,
    Rack,
    Rail,
    Rake,
    Shed,
    Tool,
    db,
)
from tests.stage import recorded, subscribe

S = db.session
Make = t.Callable[..., AppState]


@pytest.fixture
def make(database_url: str, tmp_path: Path) -> t.Iterator[Make]:
    """Makes the app, and enters its context."""
    with contextlib.ExitStack() as stack:

        def make(**config: t.Any) -> AppState:
            return stack.enter_context(
                capturing(db, unusual_models.CATALOG, database_url, tmp_path, **config)
            )

        yield make


@pytest.fixture
def silent(make: Make) -> AppState:
    """The app without a subscription."""
    return make()


@pytest.fixture
def heard(silent: AppState) -> AppState:
    """The app with a subscription to everything."""
    subscribe(silent, NOWHERE, "*", includes=["changes", "tools"])
    return silent


def save(*objects: t.Any) -> None:
    S.add_all(objects)
    S.commit()


def rows(model: type) -> list[tuple[t.Any, ...]]:
    """What the database has, read on another connection than the session's."""
    with db.engine.connect() as connection:
        table = t.cast("sa.Table", sa.inspect(model).local_table)
        return [tuple(row) for row in connection.execute(sa.select(table).order_by(table.c.id))]


class TestWhatTheHostDoes:
    def test_a_column_changed_in_place_later(self, silent: AppState) -> None:
        one, other = Box(id=1), Box(id=2)
        save(one, other)
        one.extra["k"] = 1  # both are expired, and read in one SELECT
        other.note = "x"
        S.commit()
        other.note = "y"
        S.flush()
        other.extra["z"] = 2
        S.commit()

        assert S.scalars(sa.select(Box.extra).order_by(Box.id)).all() == [{"k": 1}, {"z": 2}]

    def test_a_collection_by_a_window_function(self, silent: AppState) -> None:
        save(feed := Feed(name="a"))
        save(Entry(feed_id=feed.id))
        feed.name = "b"
        S.commit()
        assert len(feed.first_entries) == 1
        S.execute(sa.delete(Entry))
        S.delete(feed)
        S.commit()

        assert rows(Feed) == []

    @pytest.mark.parametrize("is_heard", [True, False])
    @pytest.mark.parametrize("is_flushed", [True, False])
    def test_what_the_database_deletes_along(
        self, silent: AppState, is_heard: bool, is_flushed: bool
    ) -> None:
        if db.engine.dialect.name == "sqlite":
            sa.event.listen(db.engine, "connect", lambda raw, _: raw.execute("PRAGMA foreign_keys = ON"))
            db.engine.dispose()
        if is_heard:
            subscribe(silent, NOWHERE, "*", includes=["tools"])
        save(Shed(id=1, tools=[Tool(id=1), Tool(id=2)]))
        S.delete(S.get_one(Shed, 1))
        if is_flushed:
            S.flush()
        S.commit()

        assert rows(Shed) == rows(Tool) == []
        if is_heard:
            told = json.loads(recorded(silent)[-1].extras or "{}")
            assert [tool["id"] for tool in told["tools"]] == [1, 2]

    def test_what_would_have_been_deleted_along(self, heard: AppState) -> None:
        save(Shed(id=1), Tool(id=1, shed_id=1))
        shed = S.get_one(Shed, 1)
        savepoint = S.begin_nested()
        S.execute(sa.delete(Tool.__table__))
        S.delete(shed)
        S.flush()
        savepoint.rollback()

        assert shed.tools == [S.get_one(Tool, 1)]
        shed.name = "x"
        S.commit()
        assert events(heard) == ["sheds.created", "sheds.updated"]

    def test_a_relationship_that_the_view_reads_after_the_session(self, heard: AppState) -> None:
        with Session(heard.engine, expire_on_commit=False) as session:
            shed = Shed(id=1, keeper=Keeper(id=1, name="A"))
            session.add_all([shed, Keeper(id=2, name="B")])
            session.commit()
            shed.keeper_id = 2
            session.commit()

        assert shed.keeper is not None
        assert shed.keeper.name == "A"  # as SQLAlchemy leaves it

    def test_a_key_that_is_set_while_detached(self, silent: AppState) -> None:
        save(Shed(id=1), rake := Rake(id=1))
        S.close()
        rake.shed_id = 1
        save(rake)

        assert rows(Rake) == [(1, "1", 1)]

    @pytest.mark.parametrize("target", ["session", "class"])
    def test_a_hook_before_the_commit_sees_what_is_not_flushed(self, silent: AppState, target: str) -> None:
        seen: list[tuple[int, int, int]] = []

        def note(session: Session) -> None:
            seen.append((len(session.new), len(session.dirty), len(session.deleted)))

        sa.event.listen(S if target == "class" else S(), "before_commit", note)
        try:
            save(box := Box(id=1))
            box.note = "x"
            S.commit()
            S.delete(box)
            S.commit()
        finally:
            sa.event.remove(S if target == "class" else S(), "before_commit", note)

        assert seen == [(1, 0, 0), (0, 1, 0), (0, 0, 1)]

    def test_a_purge_of_what_a_filter_hides(self, heard: AppState) -> None:
        save(Box(id=1, note="gone", late="l"))

        def hide(execution: ORMExecuteState) -> None:
            if (
                execution.is_select
                and not execution.is_column_load
                and not execution.is_relationship_load
                and not execution.execution_options.get("all")
            ):
                hidden = with_loader_criteria(Box, Box.note != "gone")
                execution.statement = execution.statement.options(hidden)

        session = Session(heard.engine)
        sa.event.listen(session, "do_orm_execute", hide)
        with session:
            assert session.scalars(sa.select(Box)).all() == []
            session.delete(session.scalars(sa.select(Box).execution_options(all=True)).one())
            session.commit()

        assert rows(Box) == []
        assert json.loads(recorded(heard)[-1].data)["late"] == "l"

    @pytest.mark.parametrize(("name", "model"), [("nails", Nail), ("pins", Pin)])
    def test_a_query_that_was_changed_before(self, heard: AppState, name: str, model: type) -> None:
        save(Shed(id=1), model(id=1, shed_id=1))
        shed, gone = S.get_one(Shed, 1), S.get_one(model, 1)
        getattr(shed, name).remove(gone)
        S.delete(gone)
        S.delete(shed)
        S.commit()

        assert events(heard) == ["sheds.created", "sheds.deleted"]

    def test_collections_that_are_no_lists(self, heard: AppState) -> None:
        subscribe(heard, NOWHERE, "racks.*", includes=["by_name", "all_pegs", "rails"])
        save(
            Rack(
                id=1,
                theme={"tone": "dark"},
                by_name={"a": Hook(id=1, name="a"), "b": Hook(id=2, name="b")},
                all_pegs={Peg(id=1, name="a"), Peg(id=2, name="b")},
                rails=[Rail(id=1), Rail(id=2)],
            )
        )
        S.delete(S.get_one(Rack, 1))
        S.commit()

        assert rows(Rack) == rows(Hook) == rows(Peg) == rows(Rail) == []
        told = next(each for each in recorded(heard) if each.event == "racks.deleted")
        assert json.loads(told.data) == {"id": 1, "tone": "dark"}
        includes = json.loads(told.extras or "{}")
        assert sorted(each["name"] for each in includes["by_name"]) == ["a", "b"]
        assert sorted(each["name"] for each in includes["all_pegs"]) == ["a", "b"]
        assert [each["place"] for each in includes["rails"]] == [0, 1]

    @pytest.mark.parametrize("is_heard", [True, False])
    def test_a_row_that_is_gone_already(self, silent: AppState, is_heard: bool) -> None:
        if is_heard:
            subscribe(silent, NOWHERE, "*")
        save(Box(id=1))
        box = S.get_one(Box, 1)  # what is deferred is not loaded
        S.execute(sa.delete(Box.__table__))
        S.delete(box)
        with pytest.warns(SAWarning, match="expected to delete 1 row"):
            S.commit()

        assert "boxes.deleted" not in events(silent)

    def test_what_is_set_to_an_expression_before_it_goes(self, heard: AppState) -> None:
        save(Box(id=1, note="a"))
        box = S.get_one(Box, 1)
        box.note = sa.func.upper("b")
        S.delete(box)
        S.commit()

        assert json.loads(recorded(heard)[-1].data)["note"] == "a"

    @pytest.mark.parametrize("is_heard", [True, False])
    def test_what_we_read_is_not_kept_where_nothing_expires(self, silent: AppState, is_heard: bool) -> None:
        if is_heard:
            subscribe(silent, NOWHERE, "*", includes=["tools"])
        save(Shed(id=1))
        with Session(silent.engine, expire_on_commit=False) as session:
            shed = session.get_one(Shed, 1)
            shed.name = "x"
            session.commit()
            with silent.engine.begin() as connection:
                connection.execute(sa.insert(Tool.__table__).values(id=1, shed_id=1))

            assert [tool.id for tool in shed.tools] == [1]


class TestWhatIsTold:
    def test_an_owner_by_another_name_of_one_that_moves_and_goes(self, heard: AppState) -> None:
        subscribe(heard, NOWHERE, "*", owner="2")
        save(box := Box(id=1, owner="1"))
        box.tenant = "2"
        S.flush()
        S.delete(box)
        S.commit()

        assert [(each.event, each.owner) for each in recorded(heard)][1:] == [("boxes.deleted", "1")]

    def test_an_owner_by_another_name(self, heard: AppState) -> None:
        save(box := Box(id=1, owner="1"))
        box.note = "x"
        S.commit()

        assert events(heard) == ["boxes.created", "boxes.updated"]
        assert {message.owner for message in recorded(heard)} == {"1"}

    def test_a_key_given_as_text(self, heard: AppState) -> None:
        if db.engine.dialect.name != "sqlite":
            pytest.skip("the server refuses it")
        save(hand := Hand(id="7", name="a"))
        hand.name = "b"
        S.commit()

        assert changes(recorded(heard)[-1]) == {"name": ["a", "b"]}

    def test_a_member_of_a_collection_that_it_does_not_know(self, heard: AppState) -> None:
        save(Shed(id=1), Shed(id=2), rake := Rake(id=1))
        one, other = S.get_one(Shed, 1), S.get_one(Shed, 2)
        assert one.rakes == other.rakes == []
        one.rakes.append(rake)
        S.commit()
        assert last_changes(heard, "rakes.updated") == {"shed_id": [None, 1]}
        one.rakes.remove(rake)
        other.rakes.append(rake)
        S.commit()

        assert last_changes(heard, "rakes.updated") == {"shed_id": [1, 2]}

    def test_what_a_later_hook_makes_of_it(self, heard: AppState) -> None:
        def note(session: Session) -> None:
            for obj in session:
                if isinstance(obj, Box) and obj.note == "a":
                    obj.note = "b"

        save(Box(id=1, note="x"))
        sa.event.listen(S(), "before_commit", note)
        S.add(Box(id=2, note="a"))
        S.flush()
        S.commit()

        assert events(heard) == ["boxes.created", "boxes.created"]
        assert json.loads(recorded(heard)[-1].data)["note"] == "b"

    def test_what_a_later_hook_deletes_again(self, heard: AppState) -> None:
        def note(session: Session) -> None:
            for obj in session:
                session.delete(obj)

        S.add(Box(id=2))
        S.flush()
        sa.event.listen(S(), "before_commit", note)
        S.commit()

        assert recorded(heard) == []

    def test_a_session_that_reads_from_a_replica(self, heard: AppState, tmp_path: Path) -> None:
        if db.engine.dialect.name != "sqlite":
            pytest.skip("one server has no replica")
        link = tmp_path / "replica.sqlite"
        link.symlink_to(t.cast("str", db.engine.url.database))
        replica = sa.create_engine(f"sqlite:///{link}")
        reads: list[str] = []
        sa.event.listen(replica, "before_cursor_execute", lambda *given: reads.append(given[2]))

        class Routing(Session):
            def get_bind(self, mapper: t.Any = None, **given: t.Any) -> t.Any:
                return heard.engine if self._flushing or given.get("clause") is None else replica

        save(Box(id=1))
        with Routing() as session:
            box = session.scalars(sa.select(Box)).one()
            box.note = "x"
            session.commit()
        replica.dispose()

        assert reads
        assert events(heard) == ["boxes.created", "boxes.updated"]

    def test_a_column_that_is_raised_for(self, heard: AppState) -> None:
        save(box := Box(id=1, late="l"))
        S.scalars(sa.select(Box).options(load_only(Box.note, raiseload=True))).one()
        box.note = "x"
        S.commit()

        assert json.loads(recorded(heard)[-1].data)["late"] == "l"

    def test_a_column_that_is_set_by_itself_and_by_the_host(self, heard: AppState) -> None:
        save(box := Box(id=1))
        box.by = "ada"  # expired
        S.commit()
        assert last_changes(heard, "boxes.updated") == {"by": ["system", "ada"]}
        box.by = "ada"
        S.commit()

        assert events(heard) == ["boxes.created", "boxes.updated"]

    @pytest.mark.parametrize("count", [1, 2])
    def test_a_column_that_the_mapping_forbids(self, heard: AppState, count: int) -> None:
        save(*(Box(id=number, blob="b") for number in range(1, count + 1)))
        for box in S.scalars(sa.select(Box)):
            box.note = "x"
        S.commit()
        for box in S.scalars(sa.select(Box)):
            S.delete(box)
        S.commit()

        assert [json.loads(message.data)["blob"] for message in recorded(heard)] == ["b"] * 3 * count

    def test_rows_of_concrete_tables(self, heard: AppState) -> None:
        save(hand := Hand(id=1, name="a"), chief := Chief(id=1, name="b"))
        hand.name, chief.name = "c", "d"
        S.commit()

        assert events(heard) == ["hands.created"] * 2 + ["hands.updated"] * 2
        assert sorted(changes(message)["name"] for message in recorded(heard)[2:]) == [["a", "c"], ["b", "d"]]


class TestBulk:
    @pytest.mark.parametrize("verb", ["update", "delete"])
    def test_criteria_that_choose_anew(self, heard: AppState, verb: str) -> None:
        if db.engine.dialect.name == "mysql":
            pytest.skip("it does not let an UPDATE ask its own table")
        save(*(Box(id=number) for number in range(20)))
        one = sa.select(Box.id).order_by(sa.func.random()).limit(1).scalar_subquery()
        statement: t.Any = sa.update(Box).values(note="x") if verb == "update" else sa.delete(Box)
        result = S.execute(statement.where(Box.id == one))
        S.commit()

        assert t.cast("t.Any", result).rowcount == 1
        assert events(heard)[20:] == [f"boxes.{verb}d"]

    def test_an_update_lets_others_refer_to_its_rows(self, silent: AppState) -> None:
        save(Shed(id=1))
        with counting(silent.engine) as sent:
            S.execute(sa.update(Shed).values(name="x"))
            S.execute(sa.delete(Shed))
        S.commit()

        if db.engine.dialect.name == "postgresql":
            locks = [each.partition(" FOR ")[2].split(" OF ")[0] for each in sent if " FOR " in each]
            assert locks == ["NO KEY UPDATE", "UPDATE"]

    def test_listeners_to_all_sessions_know_the_tenant(self, heard: AppState) -> None:
        seen: list[str] = []

        def note(session: Session, _: t.Any, __: t.Any) -> None:
            seen.append(session.info["tenant"])

        with Session(heard.engine, info={"tenant": "7"}) as session:
            session.add(Box(id=1))
            session.commit()
            sa.event.listen(Session, "after_begin", note)
            try:
                session.execute(sa.update(Box).values(note="x"))
                session.commit()
            finally:
                sa.event.remove(Session, "after_begin", note)

        assert set(seen) == {"7"}
        assert events(heard) == ["boxes.created", "boxes.updated"]


class TestEmit:
    def test_with_the_scoped_session(self, heard: AppState) -> None:
        save(box := Box(id=1))
        webhooks = heard.app.extensions["webhooks_of_tests"] = Doorless()
        webhooks.emit("boxes.updated", box, session=S)
        with webhooks.muted(S):
            box.note = "x"
        S.commit()

        assert events(heard) == ["boxes.created", "boxes.updated"]


class TestAnOwnerThatFails:
    def test_a_deletion_names_the_event(self, make: Make) -> None:
        state = make(WEBHOOKS_ON_ERROR="raise")
        subscribe(state, NOWHERE, "*")
        save(gate := Gate(id=1))
        with state.engine.begin() as connection:
            connection.execute(sa.update(Gate.__table__).values(name="shut"))
        S.delete(gate)
        with pytest.raises(EmitError, match=r"gates\.deleted of Gate 1.*no owner today"):
            S.commit()
        S.rollback()

    def test_or_is_logged(self, make: Make) -> None:
        state = make(WEBHOOKS_ON_ERROR="log")
        subscribe(state, NOWHERE, "*")
        save(gate := Gate(id=1))
        with state.engine.begin() as connection:
            connection.execute(sa.update(Gate.__table__).values(name="shut"))
        S.delete(gate)
        S.commit()

        assert rows(Gate) == []
        assert events(state) == ["gates.created"]


class TestAtTheStart:
    @pytest.mark.parametrize(
        ("old", "new", "where"),
        [
            ("[tools]", "[nails]", "channels.sheds.includes[0]"),
            ("[tools]", "{n: nails.id}", "channels.sheds.includes.n"),
        ],
    )
    def test_a_query_is_refused(self, make: Make, tmp_path: Path, old: str, new: str, where: str) -> None:
        path = tmp_path / "w.yaml"
        path.write_text(unusual_models.CATALOG.read_text().replace(old, new))
        with pytest.raises(CatalogError) as refused:
            make(WEBHOOKS_CATALOG=str(path))

        assert f'{where}: Shed.nails is lazy="dynamic"' in str(refused.value)
        assert "viewonly=True" in str(refused.value)

    def test_a_condition_on_what_a_query_computes_is_refused(self, make: Make, tmp_path: Path) -> None:
        path = tmp_path / "w.yaml"
        louder = "events: {updated: , louder: {on: updated, when: {changed: [loud]}}}"
        path.write_text(
            unusual_models.CATALOG.read_text().replace("events: [created, updated, deleted]", louder, 1)
        )
        with pytest.raises(CatalogError, match='"loud" of Box is not a column'):
            make(WEBHOOKS_CATALOG=str(path))

    def test_a_deletion_that_the_commit_flushes_costs_nothing_without_a_subscription(
        self, silent: AppState
    ) -> None:
        save(Shed(id=1, tools=[Tool(id=1)]))
        shed = S.get_one(Shed, 1)
        S.delete(shed)
        with counting(silent.engine) as sent:
            S.commit()

        assert "SELECT webhook_listeners" in kinds(sent)
        assert not [each for each in sent if "FROM tool" in each and each.startswith("SELECT")]


DEEDS: dict[str, t.Callable[[Rack], t.Any]] = {
    "a dict of children": lambda rack: rack.by_name.pop("a"),
    "a set of children": lambda rack: rack.all_pegs.clear(),
    "a list that counts": lambda rack: rack.rails.pop(0),
    "a list that is turned round": lambda rack: rack.rails.insert(0, rack.rails.pop()),
    "another list": lambda rack: setattr(rack, "rails", [Rail(id=9)]),
    "a dict of a class of the host's": lambda rack: rack.theme.update(tone="masked"),
    "a child under another key": lambda rack: setattr(rack.by_name["a"], "name", "z"),
}


@pytest.mark.parametrize("expires", [True, False], ids=["expiring", "keeping"])
@pytest.mark.parametrize("name", DEEDS)
def test_what_a_dump_does_to_unusual_collections_is_undone(heard: AppState, name: str, expires: bool) -> None:
    def dump(row: t.Any, event: t.Any = None) -> dict[str, t.Any]:
        DEEDS[name](row)
        return {"id": row.id}

    object.__setattr__(heard.bound["racks"], "dump", dump)
    S().expire_on_commit = expires
    rack = Rack(id=1, theme={"tone": "red"}, rails=[Rail(id=1), Rail(id=2), Rail(id=3)])
    rack.by_name = {"a": Hook(id=1, name="a"), "b": Hook(id=2, name="b")}
    rack.all_pegs = {Peg(id=1, name="p"), Peg(id=2, name="q")}
    save(rack)
    rack.theme["more"] = 1
    S.commit()

    assert sorted(rack.by_name) == ["a", "b"]
    assert sorted(peg.name for peg in rack.all_pegs) == ["p", "q"]
    assert [(rail.id, rail.place) for rail in rack.rails] == [(1, 0), (2, 1), (3, 2)]
    assert dict(rack.theme) == {"tone": "red", "more": 1}
    for each in (*rack.by_name.values(), *rack.rails):  # no object becomes an orphan
        sa.orm.attributes.flag_modified(each, "owner")
    S.commit()
    assert [len(rows(model)) for model in (Hook, Peg, Rail)] == [2, 2, 3]
    assert [row[0] for row in rows(Rail)] == [1, 2, 3]


def test_what_a_dump_adds_to_a_query_in_place_of_a_collection_is_undone(heard: AppState) -> None:
    def dump(row: t.Any, event: t.Any = None) -> dict[str, t.Any]:
        row.nails.append(Nail(id=2))
        row.pins.add(Pin(id=2))
        return {"id": row.id}

    object.__setattr__(heard.bound["sheds"], "dump", dump)
    save(shed := Shed(id=1, nails=[Nail(id=1)]))
    shed.name = "x"
    S.commit()

    assert [row[0] for row in rows(Nail)] == [1]
    assert rows(Pin) == []
