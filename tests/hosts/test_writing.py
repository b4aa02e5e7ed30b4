"""How hosts write: none of their commits fails because of us, and events have the stored values."""

from __future__ import annotations

import typing as t

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from flask_webhooks.models import BrokenMessage
from flask_webhooks.state import AppState
from tests.capture.conftest import events, last_changes, recorded_data
from tests.hosts.conftest import CATALOG, Enter
from tests.hosts.studio import Project, Status, Task, db


def broken(state: AppState) -> list[str]:
    """What is said of messages without data."""
    with Session(state.engine) as session:
        return list(session.scalars(sa.select(BrokenMessage.error)))


def insert(model: t.Any) -> t.Any:
    """An INSERT that can have ON CONFLICT."""
    return {"sqlite": sqlite, "postgresql": postgresql}[db.engine.dialect.name].insert(model)


class TestUpserts:
    def write(self) -> None:
        """One that is new, the same again, and one that does nothing."""
        for name in ("first", "second"):
            statement = insert(Project).values(code="a", name=name)
            db.session.execute(
                statement.on_conflict_do_update(
                    index_elements=["code"], set_={"name": statement.excluded.name}
                )
            )
        db.session.execute(insert(Project).values(code="a", name="third").on_conflict_do_nothing())
        db.session.commit()
        assert db.session.scalars(sa.select(Project.name)).all() == ["second"]

    def test_nothing_is_refused_without_a_subscription(self, enter: Enter) -> None:
        state = enter(owner=None)
        self.write()
        assert events(state) == []

    def test_inserted_and_updated_rows_have_their_events(self, enter: Enter) -> None:
        state = enter()
        self.write()
        # In one transaction they are one: the row is new, with its last values.
        assert events(state) == ["projects.created"]
        assert recorded_data(state, "projects.created")[0]["name"] == "second"

        statement = insert(Project).values(code="a", name="fourth")
        db.session.execute(
            statement.on_conflict_do_update(index_elements=["code"], set_={"name": statement.excluded.name})
        )
        db.session.commit()
        assert events(state)[1:] == ["projects.updated"]
        assert last_changes(state, "projects.updated") == {"name": ["second", "fourth"]}


class TestAsAssigned:
    def test_an_enum_by_its_name(self, enter: Enter) -> None:
        state = enter()
        db.session.add(Task(status="DONE"))
        db.session.commit()
        assert recorded_data(state, "tasks.created")[0]["status"] == "done"

    def test_an_update_by_its_name(self, enter: Enter) -> None:
        state = enter()
        db.session.add(task := Task())
        db.session.commit()
        task.status = "DONE"
        db.session.commit()
        assert recorded_data(state, "tasks.updated")[0]["status"] == "done"
        assert events(state) == ["tasks.created", "tasks.updated", "tasks.done"]

    def test_a_day_as_text(self, enter: Enter) -> None:
        state = enter()
        db.session.add(task := Task())
        db.session.commit()
        task.due_on = "2026-03-01"
        try:
            db.session.commit()
        except sa.exc.StatementError:  # SQLite's type wants a date, with us and without
            assert db.engine.dialect.name == "sqlite"
            return
        assert recorded_data(state, "tasks.updated")[0]["due_on"] == "2026-03-01"
        assert broken(state) == []

    def test_changes_of_a_choice(self, enter: Enter) -> None:
        state = enter()
        db.session.add(project := Project(code="a"))
        db.session.commit()
        project.kind = "show"
        db.session.commit()
        assert recorded_data(state, "projects.updated")[0]["kind"] == "show"
        assert last_changes(state, "projects.updated")["kind"] == ["film", "show"]


class TestASchemaThatCommits:
    catalog = CATALOG.replace(
        "model: tests.hosts.studio:Project",
        "model: tests.hosts.studio:Project\n    schema: tests.hosts.studio:CommittingSchema",
    )

    def test_the_commit_goes_through_and_the_mistake_is_named(
        self, enter: Enter, caplog: pytest.LogCaptureFixture
    ) -> None:
        state = enter(self.catalog)
        db.session.add(Project(code="a", tasks=[Task()]))
        db.session.commit()
        assert db.session.scalar(sa.select(sa.func.count()).select_from(Project)) == 1
        assert recorded_data(state, "projects.created") == [{"id": 1, "tasks": 1}]
        assert broken(state) == []
        assert "CommittingSchema at the field 'tasks' calls commit()" in caplog.text

    def test_none_of_it_runs_without_a_subscription(self, enter: Enter) -> None:
        state = enter(self.catalog, owner=None)
        db.session.add(Project(code="a"))
        db.session.commit()
        assert broken(state) == []


@pytest.mark.parametrize("empty_database_url", ["sqlite"], indirect=True)
def test_a_value_that_can_be_written_and_not_read(enter: Enter) -> None:
    """SQLite stores any text in an Enum column; SQLAlchemy raises when it is read. A commit must not."""
    enter()
    db.session.add(Task(status=Status.DONE.value))  # it wants the member, or its name
    db.session.commit()
    assert db.session.execute(sa.text("SELECT status FROM task")).scalar() == "done"
