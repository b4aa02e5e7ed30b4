"""Owners found by foreign keys without a relationship, and apps with one owner for all rows."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, with_loader_criteria

from flask_webhooks.capture import emit_many
from flask_webhooks.replay.backfill import Backfill
from flask_webhooks.state import AppState
from tests.capture.conftest import NOWHERE, capturing, counting, kinds
from tests.stage import recorded, subscribe


class Base(DeclarativeBase):
    """Root of the models."""


db = SQLAlchemy(model_class=Base)
S = db.session


class Project(db.Model):  # type: ignore[name-defined]
    """In no channel, and on the way to an owner."""

    __tablename__ = "keys_project"

    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str | None] = mapped_column(sa.String(20), unique=True)
    studio_id: Mapped[int | None]
    is_archived: Mapped[bool] = mapped_column(default=False)


class Task(db.Model):  # type: ignore[name-defined]
    """Knows its project by key alone."""

    __tablename__ = "keys_task"

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int | None] = mapped_column(sa.ForeignKey("keys_project.id"))
    project_code: Mapped[str | None] = mapped_column(sa.ForeignKey("keys_project.code"))
    name: Mapped[str] = mapped_column(sa.String(20), default="")


class Comment(db.Model):  # type: ignore[name-defined]
    """Two keys away from its owner."""

    __tablename__ = "keys_comment"

    id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[int | None] = mapped_column(sa.ForeignKey("keys_task.id"))
    text: Mapped[str] = mapped_column(sa.String(20), default="")


class Preview(db.Model):  # type: ignore[name-defined]
    """A relationship, and then a key."""

    __tablename__ = "keys_preview"

    id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[int | None] = mapped_column(sa.ForeignKey("keys_task.id"))
    task: Mapped[Task | None] = relationship()


CATALOG = f"""\
version: 1
channels:
  tasks: {{model: {__name__}:Task, owner: project_id.studio_id, events: [created, updated, deleted]}}
  comments:
    model: {__name__}:Comment
    owner: task_id.project_id.studio_id
    events: [created, updated, deleted]
  previews:
    model: {__name__}:Preview
    owner: task.project_id.studio_id
    events: [created, updated, deleted]
    touches: [task]
"""


@pytest.fixture(params=["project_id", "project_code"])
def key(request: pytest.FixtureRequest) -> str:
    """The primary key, or another."""
    return t.cast("str", request.param)


@pytest.fixture
def pipeline(key: str, database_url: str, tmp_path: Path) -> t.Iterator[AppState]:
    """Studios 1 and 2 listen to everything."""
    catalog = CATALOG.replace("project_id", key)
    with capturing(db, catalog, database_url, tmp_path, WEBHOOKS_ON_ERROR="raise") as state:
        for owner in "12":
            subscribe(state, NOWHERE, "*", owner=owner, includes=["changes"])
        save(*(Project(id=number, code=f"p{number}", studio_id=number) for number in (1, 2)))
        S.commit()
        yield state


def save(*objects: t.Any) -> None:
    S.add_all(objects)
    S.commit()


def of(number: int | None) -> dict[str, t.Any]:
    """What leads to a project, by both its keys."""
    return {"project_id": number, "project_code": None if number is None else f"p{number}"}


@pytest.fixture
def task(pipeline: AppState) -> Task:
    save(Task(id=1, name="a", **of(1)))
    return S.get_one(Task, 1)


def commit_and_read(state: AppState) -> list[tuple[str, str]]:
    """Commit; return the new messages with their owners."""
    before = len(recorded(state))
    S.commit()
    return sorted((each.event, each.owner) for each in recorded(state)[before:])


MOVED = [("tasks.created", "2"), ("tasks.deleted", "1")]


def test_events_go_to_the_owner_that_the_keys_lead_to(pipeline: AppState) -> None:
    S.add_all([Task(id=1, **of(1)), Task(id=2, **of(2)), Task(id=3)])
    S.flush()
    S.add_all([Comment(id=1, task_id=2), Preview(id=1, task_id=1)])

    assert commit_and_read(pipeline) == [
        ("comments.created", "2"),
        ("previews.created", "1"),
        ("tasks.created", "1"),
        ("tasks.created", "2"),
    ]
    assert "project_id->" not in dir(Task), "nothing is added to the host's classes"


def test_many_rows_take_one_statement(pipeline: AppState) -> None:
    save(*(Project(id=number, code=f"p{number}", studio_id=1) for number in range(10, 30)))
    S.expunge_all()
    S.add_all(Task(id=number, **of(number)) for number in range(10, 30))
    with counting(pipeline.engine) as sent:
        assert len(commit_and_read(pipeline)) == 20

    assert sum("FROM keys_project" in each for each in sent) == 1


def test_what_the_session_has_is_not_asked_for(pipeline: AppState, key: str) -> None:
    known = S.get_one(Project, 1)
    assert known.studio_id == 1
    S.add(Task(id=1, **of(1)))
    with counting(pipeline.engine) as sent:
        assert commit_and_read(pipeline) == [("tasks.created", "1")]

    asked = sum("FROM keys_project" in each for each in sent)
    assert asked == (0 if key == "project_id" else 1), "a session knows its objects by primary key"


@pytest.mark.parametrize("is_bulk", [True, False])
def test_a_row_that_is_put_elsewhere_moves(pipeline: AppState, task: Task, is_bulk: bool) -> None:
    if is_bulk:
        S.execute(sa.update(Task).values(of(2)))
    else:
        for name, value in of(2).items():
            setattr(task, name, value)

    assert commit_and_read(pipeline) == MOVED


def test_to_nothing_and_within_one_owner(pipeline: AppState, task: Task) -> None:
    save(Project(id=3, code="p3", studio_id=1))
    task.project_id, task.project_code = 3, "p3"
    assert commit_and_read(pipeline) == [("tasks.updated", "1")]

    task.project_id = task.project_code = None
    assert commit_and_read(pipeline) == [("tasks.deleted", "1")]


@pytest.mark.parametrize("is_bulk", [True, False])
def test_what_it_is_in_goes_to_another(pipeline: AppState, task: Task, is_bulk: bool) -> None:
    if is_bulk:
        S.execute(sa.update(Project).where(Project.id == 1).values(studio_id=2))
    else:
        S.get_one(Project, 1).studio_id = 2
    task.name = "b"

    assert commit_and_read(pipeline) == MOVED


def test_what_it_was_in_is_deleted(pipeline: AppState, task: Task) -> None:
    project = S.get_one(Project, 1)
    task.project_id, task.project_code = 2, "p2"
    S.flush()
    S.delete(project)

    assert commit_and_read(pipeline) == MOVED


@pytest.mark.parametrize("is_bulk", [True, False])
def test_deleted_along_with_what_it_was_in(pipeline: AppState, task: Task, is_bulk: bool) -> None:
    save(Comment(id=1, task_id=1), Preview(id=1, task_id=1))
    S.expunge_all()
    if is_bulk:
        for model in (Comment, Preview, Task, Project):
            S.execute(sa.delete(model).where(model.id == 1))
    else:
        for model in (Comment, Preview, Task):
            S.delete(S.get_one(model, 1))
        S.flush()
        S.delete(S.get_one(Project, 1))

    assert commit_and_read(pipeline) == [
        ("comments.deleted", "1"),
        ("previews.deleted", "1"),
        ("tasks.deleted", "1"),
    ]


@pytest.mark.parametrize("is_bulk", [True, False])
def test_it_goes_when_its_project_has_moved(pipeline: AppState, task: Task, is_bulk: bool) -> None:
    S.get_one(Project, 1).studio_id = 2
    S.flush()
    if is_bulk:
        S.execute(sa.delete(Task))
    else:
        S.delete(task)

    assert commit_and_read(pipeline) == [("tasks.deleted", "1")]


def test_moved_and_then_deleted(pipeline: AppState, task: Task) -> None:
    task.project_id, task.project_code = 2, "p2"
    S.flush()
    S.delete(task)

    assert commit_and_read(pipeline) == [("tasks.deleted", "1")]


def test_what_a_touched_row_is_in_says_whose_it_is(pipeline: AppState, task: Task) -> None:
    save(Preview(id=1, task_id=1))
    S.expunge_all()
    S.delete(S.get_one(Preview, 1))

    assert commit_and_read(pipeline) == [("previews.deleted", "1"), ("tasks.updated", "1")]


def test_a_filter_on_all_sessions_hides_nothing_on_the_way(pipeline: AppState, task: Task) -> None:
    save(Comment(id=1, task_id=1))
    S.get_one(Project, 1).is_archived = True
    S.commit()
    S.expunge_all()

    def hide(execution: t.Any) -> None:
        if execution.is_select:
            only = with_loader_criteria(Project, Project.is_archived.is_(False), include_aliases=True)
            execution.statement = execution.statement.options(only)

    session = S()
    sa.event.listen(session, "do_orm_execute", hide)
    try:
        S.get_one(Comment, 1).text = "still told"
        assert commit_and_read(pipeline) == [("comments.updated", "1")]
    finally:
        sa.event.remove(session, "do_orm_execute", hide)


def test_emitted_rows_know_their_owner(pipeline: AppState, task: Task) -> None:
    emit_many(pipeline, S(), "tasks.updated", [task])
    S.add(new := Task(id=2, **of(2)))
    emit_many(pipeline, S(), "tasks.updated", [new])

    assert commit_and_read(pipeline) == [
        ("tasks.created", "2"),
        ("tasks.updated", "1"),
        ("tasks.updated", "2"),
    ]


def test_backfills_look_along_keys(pipeline: AppState, key: str) -> None:
    with Session(pipeline.engine, info={"webhooks": False}) as session:
        session.add_all(Project(id=number, code=f"p{number}", studio_id=1) for number in range(10, 20))
        session.flush()
        session.add_all(Task(id=number, **of(number)) for number in range(10, 20))
        session.add(Task(id=2, **of(2)))
        session.commit()
    one = subscribe(pipeline, NOWHERE, "tasks.*", owner="1")
    with counting(pipeline.engine) as sent:
        list(Backfill(pipeline, "tasks", one.id).batches())

    assert [message.entity_id for message in recorded(pipeline)] == [str(number) for number in range(10, 20)]
    assert sum("FROM keys_project" in each for each in sent) <= 2


ALONE = f"""\
version: 1
defaults: {{owner: {{value: studio}}}}
channels:
  tasks: {{model: {__name__}:Task, events: [created, updated, deleted]}}
  comments: {{model: {__name__}:Comment, owner: {{value: other}}, events: [created]}}
  projects: {{model: {__name__}:Project, owner: studio_id, events: [created]}}
  renders: {{events: [done]}}
"""


@pytest.mark.parametrize("record", ["listened", "all"])
def test_one_owner_for_all(database_url: str, tmp_path: Path, record: str) -> None:
    config = {"WEBHOOKS_ON_ERROR": "raise", "WEBHOOKS_RECORD": record}
    with capturing(db, ALONE, database_url, tmp_path, **config) as state:
        for owner in ("studio", "other", "7"):
            subscribe(state, NOWHERE, "*", owner=owner, includes=["changes"])
        save(Project(id=1, studio_id=7), Task(id=1, name="a"))
        save(Comment(id=1))
        assert sorted((each.event, each.owner) for each in recorded(state)) == [
            ("comments.created", "other"),
            ("projects.created", "7"),
            ("tasks.created", "studio"),
        ]
        task = S.get_one(Task, 1)
        task.name = "b"
        assert commit_and_read(state) == [("tasks.updated", "studio")]
        S.execute(sa.update(Task).values(name="c"))
        assert commit_and_read(state) == [("tasks.updated", "studio")]
        emit_many(state, S(), "renders.done", [{"frame": 1}])
        emit_many(state, S(), "tasks.updated", [task])
        assert commit_and_read(state) == [("renders.done", "studio"), ("tasks.updated", "studio")]
        S.delete(task)
        assert commit_and_read(state) == [("tasks.deleted", "studio")]
        assert json.loads(recorded(state)[-1].data)["name"] == "c"


def test_the_one_owner_has_no_subscription(database_url: str, tmp_path: Path) -> None:
    """Then a commit asks once, and reads nothing."""
    with capturing(db, ALONE, database_url, tmp_path) as state:
        subscribe(state, NOWHERE, "*", owner="nobody")
        S.add(Task(id=1))
        with counting(state.engine) as sent:
            S.commit()

        assert kinds(sent).count("SELECT webhook_listeners") == 1
        assert not any("FROM keys" in each for each in sent)
        assert recorded(state) == []
