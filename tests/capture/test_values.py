"""Old values are right even where SQLAlchemy has not kept them."""

from __future__ import annotations

import typing as t

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import load_only, undefer

from flask_webhooks.state import AppState
from tests.capture.conftest import RECORDING, counting, events, kinds, last_changes, recorded_data
from tests.capture.valued_models import Animal, Cage, Dog, Mood, Place, Pup, Seat, Stub, Ticket, db


@pytest.fixture
def animal(valued: AppState) -> Animal:
    """Committed, and expired as everything is after a commit."""
    animal = Animal(name="old", story="once", facts={"a": 1}, tags=[1])
    db.session.add(animal)
    db.session.commit()
    return animal


AUTOMATIC = {"count", "revised"}


def changed(state: AppState, event: str = "animals.updated") -> dict[str, t.Any]:
    """What was changed, without what changes with every update."""
    return {name: pair for name, pair in last_changes(state, event).items() if name not in AUTOMATIC}


class TestForgotten:
    def test_expired(self, valued: AppState, animal: Animal) -> None:
        animal.name = "new"
        db.session.commit()

        assert changed(valued) == {"name": ["old", "new"]}

    def test_expired_and_set_to_the_same(self, valued: AppState, animal: Animal) -> None:
        animal.name = "old"
        db.session.commit()

        assert events(valued) == ["animals.created"]

    def test_many_expired_cost_one_statement(self, valued: AppState) -> None:
        seats = [Seat(row="A", number=number, note="old") for number in range(20)]
        db.session.add_all(seats)
        db.session.commit()
        for seat in seats:
            seat.note = "new"
        with counting(valued.engine) as sent:
            db.session.commit()

        assert kinds(sent) == ["SELECT seat", "UPDATE seat", *RECORDING]
        assert len(recorded_data(valued, "seats.updated")) == 20

    def test_many_deferred_cost_one_statement(self, valued: AppState) -> None:
        db.session.add_all(Animal() for _ in range(20))
        db.session.commit()
        for animal in db.session.scalars(sa.select(Animal)).all():
            animal.mood = Mood.TAME
        with counting(valued.engine) as sent:
            db.session.commit()

        assert kinds(sent) == [
            "UPDATE animal",
            "SELECT animal",
            RECORDING[0],
            "SELECT animal",
            *RECORDING[1:],
        ]

    def test_deferred(self, valued: AppState, animal: Animal) -> None:
        db.session.expire_all()
        found = db.session.scalars(sa.select(Animal)).one()
        assert "story" in sa.inspect(found).unloaded
        found.story = "twice"
        db.session.commit()

        assert changed(valued) == {"story": ["once", "twice"]}

    def test_not_among_the_loaded(self, valued: AppState, animal: Animal) -> None:
        db.session.expunge_all()
        found = db.session.scalars(sa.select(Animal).options(load_only(Animal.id))).one()
        found.name = "new"
        db.session.commit()

        assert changed(valued) == {"name": ["old", "new"]}

    def test_a_server_default(self, valued: AppState, animal: Animal) -> None:
        animal.born = "now"
        db.session.commit()

        assert changed(valued) == {"born": ["then", "now"]}

    def test_a_condition_on_a_server_default_of_the_same_transaction(self, valued: AppState) -> None:
        ticket = Ticket()
        db.session.add(ticket)
        db.session.flush()
        ticket.state = "sold"
        db.session.commit()

        assert sorted(events(valued)) == ["tickets.created", "tickets.sold"]

    def test_a_condition_on_an_expired_enum(self, valued: AppState, animal: Animal) -> None:
        animal.mood = Mood.TAME
        db.session.commit()

        assert "animals.tamed" in events(valued)
        assert changed(valued) == {"mood": ["wild", "tame"]}

    def test_an_sql_expression(self, valued: AppState, animal: Animal) -> None:
        animal.x = Animal.x + 5  # type: ignore[assignment]
        db.session.commit()

        assert changed(valued) == {"x": [0, 5]}
        assert "animals.moved" in events(valued)

    def test_an_sql_expression_that_changes_nothing(self, valued: AppState, animal: Animal) -> None:
        animal.x = Animal.x + 0  # type: ignore[assignment]
        db.session.commit()

        assert changed(valued) == {}


class TestAutomatic:
    def test_onupdate_in_python_and_in_sql(self, valued: AppState, animal: Animal) -> None:
        animal.name = "new"
        db.session.commit()

        assert last_changes(valued, "animals.updated") == {
            "name": ["old", "new"],
            "count": [1, 2],
            "revised": [0, 1],
        }

    def test_a_condition_on_it(self, valued: AppState, animal: Animal) -> None:
        animal.name = "new"
        db.session.commit()

        assert "animals.counted" in events(valued)

    def test_a_version_counter(self, valued: AppState) -> None:
        ticket = Ticket()
        db.session.add(ticket)
        db.session.commit()
        ticket.state = "sold"
        db.session.commit()

        assert last_changes(valued, "tickets.updated") == {
            "state": ["new", "sold"],
            "summary": ["new 1", "sold 2"],
        }


class TestInPlace:
    @pytest.mark.parametrize("is_loaded", [True, False])
    def test_a_mutable_dict(self, valued: AppState, animal: Animal, is_loaded: bool) -> None:
        if is_loaded:
            assert animal.name
        animal.facts["a"] = 2
        db.session.commit()

        assert changed(valued) == {"facts": [{"a": 1}, {"a": 2}]}

    def test_a_mutable_list(self, valued: AppState, animal: Animal) -> None:
        animal.tags.append(2)
        db.session.commit()

        assert changed(valued) == {"tags": [[1], [1, 2]]}

    def test_there_and_back(self, valued: AppState, animal: Animal) -> None:
        animal.facts["a"] = 2
        db.session.flush()
        animal.facts["a"] = 1
        db.session.commit()

        assert changed(valued) == {}

    def test_several_flushes(self, valued: AppState, animal: Animal) -> None:
        for number in (2, 3, 4):
            animal.facts["a"] = number
            db.session.flush()
        db.session.commit()

        assert changed(valued) == {"facts": [{"a": 1}, {"a": 4}]}

    def test_many_cost_one_statement(self, valued: AppState) -> None:
        animals = [Animal(facts={"a": number}) for number in range(20)]
        db.session.add_all(animals)
        db.session.commit()
        for animal in db.session.scalars(sa.select(Animal).options(undefer("*"))).all():
            animal.facts["b"] = 1
        with counting(valued.engine) as sent:
            db.session.flush()

        assert len([statement for statement in sent if statement.startswith("SELECT")]) == 1


class TestShapes:
    def test_a_composite(self, valued: AppState, animal: Animal) -> None:
        animal.place = Place(3, 4)
        db.session.commit()

        assert changed(valued) == {"x": [0, 3], "y": [0, 4]}
        assert "animals.moved" in events(valued)

    def test_a_hybrid_shows_the_last_state(self, valued: AppState) -> None:
        ticket = Ticket()
        db.session.add(ticket)
        db.session.commit()
        ticket.state = "sold"
        db.session.commit()

        assert [data["summary"] for data in recorded_data(valued, "tickets.updated")] == ["sold 2"]

    def test_joined_inheritance_is_seen_by_both_channels(self, valued: AppState) -> None:
        dog = Dog(name="Rex", breed="pug")
        db.session.add(dog)
        db.session.commit()
        dog.name, dog.breed = "Max", "mix"
        db.session.commit()

        assert sorted(set(events(valued))) == [
            "animals.counted",
            "animals.created",
            "animals.updated",
            "dogs.created",
            "dogs.updated",
        ]
        assert changed(valued, "dogs.updated") == {"name": ["Rex", "Max"], "breed": ["pug", "mix"]}
        assert changed(valued, "animals.updated") == {"name": ["Rex", "Max"]}

    def test_a_column_of_the_subclass_is_none_of_the_base(self, valued: AppState) -> None:
        dog = Dog(breed="pug")
        db.session.add(dog)
        db.session.commit()
        dog.breed = "mix"
        db.session.commit()

        assert changed(valued, "dogs.updated") == {"breed": ["pug", "mix"]}

    def test_single_table_inheritance(self, valued: AppState) -> None:
        pup = Pup(trick="sit")
        db.session.add(pup)
        db.session.commit()
        pup.trick = "roll"
        db.session.commit()
        db.session.delete(pup)
        db.session.commit()

        assert changed(valued, "pups.updated") == {"trick": ["sit", "roll"]}
        assert [data["trick"] for data in recorded_data(valued, "pups.deleted")] == ["roll"]
        assert "animals.deleted" in events(valued)
        assert "dogs.created" not in events(valued)

    def test_a_composite_primary_key(self, valued: AppState) -> None:
        seats = [Seat(row=row, number=1) for row in "AB"]
        db.session.add_all(seats)
        db.session.commit()
        for seat in seats:
            seat.note = seat.row
        db.session.commit()

        assert [data["note"] for data in recorded_data(valued, "seats.updated")] == ["A", "B"]

    def test_a_primary_key_that_changes(self, valued: AppState) -> None:
        seat = Seat(row="A", number=1)
        db.session.add(seat)
        db.session.commit()
        seat.number = 2
        db.session.flush()
        seat.note = "x"
        db.session.commit()

        assert events(valued) == ["seats.created", "seats.updated"]
        assert last_changes(valued, "seats.updated") == {"number": [1, 2], "note": ["", "x"]}

    def test_a_key_that_takes_the_place_of_a_deleted_one(self, valued: AppState) -> None:
        first, second = Seat(row="A", number=1), Seat(row="A", number=2)
        db.session.add_all([first, second])
        db.session.commit()
        db.session.delete(second)
        db.session.flush()
        first.number = 2
        db.session.commit()

        assert sorted(events(valued)[2:]) == ["seats.deleted", "seats.updated"]


class TestReferences:
    @pytest.fixture
    def cages(self, valued: AppState) -> list[Cage]:
        cages = [Cage(name="one"), Cage(name="two")]
        db.session.add_all([*cages, Animal(cage=cages[0])])
        db.session.commit()
        return cages

    def test_a_many_to_one_that_only_the_flush_sets(self, valued: AppState, cages: list[Cage]) -> None:
        animal = db.session.scalars(sa.select(Animal)).one()
        keys = [cage.id for cage in cages]
        db.session.expire(animal)
        animal.cage = cages[1]
        db.session.commit()

        assert changed(valued) == {"cage_id": keys}

    def test_both_ends_are_touched_when_it_moves(self, valued: AppState, cages: list[Cage]) -> None:
        animal = db.session.scalars(sa.select(Animal)).one()
        animal.cage = cages[1]
        db.session.commit()

        assert sorted(data["name"] for data in recorded_data(valued, "cages.updated")) == ["one", "two"]

    def test_a_collection_without_a_way_back(self, valued: AppState) -> None:
        one, two, stub = Ticket(), Ticket(), Stub()
        one.stubs = [stub]
        db.session.add_all([one, two])
        db.session.commit()
        keys = [one.id, two.id]
        one.stubs = []
        two.stubs = [stub]
        db.session.expire(stub)
        db.session.commit()

        assert last_changes(valued, "stubs.updated") == {"ticket_id": keys}
