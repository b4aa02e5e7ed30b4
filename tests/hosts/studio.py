"""An app as people write them: one tenant, data-access functions that commit, values assigned as they come.

Everything here was seen in public apps; nothing of it is taken from one.
"""

from __future__ import annotations

import enum
import functools
import typing as t
from datetime import date

import marshmallow as ma
import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy_utils import ChoiceType


class Base(DeclarativeBase):
    """Root of the models; all rows are the studio's, which no column says."""

    studio = "studio"


db = SQLAlchemy(model_class=Base)
Row: t.Any = db.Model


class Status(enum.Enum):
    """Of a task."""

    TODO = "todo"
    DONE = "done"


class Project(Row):
    """What tasks belong to."""

    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(sa.String(20), unique=True)
    name: Mapped[str] = mapped_column(sa.String(80), default="")
    studio_id: Mapped[str] = mapped_column(sa.String(20), default="7")
    kind: Mapped[t.Any] = mapped_column(ChoiceType([("film", "Film"), ("show", "Show")]), default="film")
    tasks: Mapped[list[Task]] = relationship(back_populates="project")


class Task(Row):
    """With a state, a day, and a key to a project that has no relationship as well."""

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int | None] = mapped_column(sa.ForeignKey("project.id"))
    name: Mapped[str] = mapped_column(sa.String(80), default="")
    status: Mapped[Status] = mapped_column(sa.Enum(Status), default=Status.TODO)
    due_on: Mapped[date | None]
    project: Mapped[Project | None] = relationship(back_populates="tasks")


class Note(Row):
    """Knows its project by the key alone."""

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(sa.ForeignKey("project.id"))
    text: Mapped[str] = mapped_column(sa.String(80), default="")


def autocommit(function: t.Callable[..., t.Any]) -> t.Callable[..., t.Any]:
    """What many apps have around each function of their data-access layer."""

    @functools.wraps(function)
    def commits(*args: t.Any) -> t.Any:
        found = function(*args)
        db.session.commit()
        return found

    return commits


@autocommit
def count_tasks(project: Project) -> int:
    """Reads, and commits all the same."""
    return int(db.session.scalar(sa.select(sa.func.count()).where(Task.project_id == project.id)) or 0)


class TaskSchema(ma.Schema):
    """What the app's API answers."""

    id = ma.fields.Integer()
    name = ma.fields.String()
    status = ma.fields.Enum(Status, by_value=True)
    due_on = ma.fields.Date(allow_none=True)


class CommittingSchema(ma.Schema):
    """Counts by a function that commits."""

    id = ma.fields.Integer()
    tasks = ma.fields.Method("count")

    def count(self, project: Project) -> int:
        """As the app's API tells it."""
        return int(count_tasks(project))
