"""Makes the models of an `Example` and an app with them, and runs the transactions of the example."""

from __future__ import annotations

import contextlib
import sys
import typing as t
from pathlib import Path

import marshmallow as ma
import sqlalchemy as sa
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase

from flask_webhooks import state as states
from flask_webhooks.capture import muted
from tests.capture.conftest import NOWHERE, Doorless
from tests.host import make_transactional
from tests.hosts.examples import IN_BULK, KINDS, Example
from tests.stage import subscribe

OWNERS = ("1", "2")
DIALECTS: dict[str, t.Any] = {"sqlite": sqlite, "postgresql": postgresql, "mysql": mysql, "mariadb": mysql}


class House:
    """The models of one example, and an app with them."""

    def __init__(self, example: Example) -> None:
        self.example, self.traits = example, example.traits
        base = type("Base", (DeclarativeBase,), {})
        options = {"expire_on_commit": "stays" not in self.traits}
        self.db = SQLAlchemy(model_class=base, session_options=options)
        self.parent = self._model(
            "Parent",
            id=sa.Column(sa.Integer, primary_key=True),
            owner=sa.Column(sa.String(20)),
            up_id=sa.Column(sa.ForeignKey("parent.id")),
            up=sa.orm.relationship("Parent", remote_side="Parent.id", back_populates="downs"),
            downs=sa.orm.relationship("Parent", back_populates="up"),
            items=sa.orm.relationship("Item", back_populates="parent"),
        )
        self.keys = ("id", "part") if "composite" in self.traits else ("id",)
        mine = [f"item.{key}" for key in self.keys]
        links = [f"item_{key}" for key in self.keys]
        self.db.Table(
            "item_tag",
            *(sa.Column(name, sa.Integer, primary_key=True) for name in links),
            sa.Column("tag_id", sa.ForeignKey("tag.id"), primary_key=True),
            sa.ForeignKeyConstraint(links, mine, ondelete="CASCADE"),
        )
        self.tag = self._model(
            "Tag",
            id=sa.Column(sa.Integer, primary_key=True),
            items=sa.orm.relationship("Item", secondary="item_tag", back_populates="tags"),
        )
        self.item = self._model("Item", **self._columns())
        self.special: t.Any = None
        if {"single", "joined"} & self.traits:
            self.special = self._special(mine)
        fields = {f"c_{name}": KINDS[name].field() for name in example.columns if name != "raw"}
        for field in fields.values():
            field.allow_none = True
        if "computed" in self.traits:
            fields["shout"] = ma.fields.String()
        self.schema: t.Any = ma.Schema.from_dict({"id": ma.fields.Integer(), **fields}, name="ItemSchema")

    def _model(self, name: str, base: t.Any = None, **attributes: t.Any) -> t.Any:
        named = {"__tablename__": name.lower()} if base is None else {}
        return type(name, (base or self.db.Model,), {"__module__": __name__, **named, **attributes})

    def _columns(self) -> dict[str, t.Any]:
        key = sa.Column(sa.Integer, primary_key=True, autoincrement=False)
        found: dict[str, t.Any] = {
            "id": key,
            "owner": sa.Column(sa.String(20), default="1"),
            "parent_id": sa.Column(sa.ForeignKey("parent.id")),
            "parent": sa.orm.relationship("Parent", back_populates="items"),
            "tags": sa.orm.relationship("Tag", secondary="item_tag", back_populates="items"),
            **{f"c_{name}": sa.Column(KINDS[name].make(), nullable=True) for name in self.example.columns},
        }
        mapping: dict[str, t.Any] = {}
        if "composite" in self.traits:
            found["part"] = sa.Column(sa.Integer, primary_key=True, autoincrement=False)
        if "versioned" in self.traits:
            found["version"] = mapping["version_id_col"] = sa.Column(sa.Integer, nullable=False, default=1)
        if {"single", "joined"} & self.traits:
            found["kind"] = sa.Column(sa.String(10), default="item")
            mapping |= {"polymorphic_on": found["kind"], "polymorphic_identity": "item"}
        if "computed" in self.traits:
            found["doubled"] = sa.orm.column_property(key * 2)
            found["total"] = sa.Column(sa.Integer, sa.Computed("id + 1"))
            found["made"] = sa.Column(sa.String(10), server_default="s")
            found["seen"] = sa.Column(sa.String(10), onupdate=sa.func.lower("U"))
            found["shout"] = hybrid_property(lambda self: f"{self.owner}!")
        return {**found, "__mapper_args__": mapping}

    def _special(self, mine: list[str]) -> t.Any:
        found: dict[str, t.Any] = {
            "extra": sa.Column(sa.String(10), default="e", nullable=True),
            "__mapper_args__": {"polymorphic_identity": "special"},
        }
        if "joined" in self.traits:
            found |= {key: sa.Column(sa.Integer, primary_key=True, autoincrement=False) for key in self.keys}
            found["__tablename__"] = "special"
            found["__table_args__"] = (sa.ForeignKeyConstraint(list(self.keys), mine, ondelete="CASCADE"),)
        return self._model("Special", self.item, **found)

    def key(self, number: int) -> dict[str, int]:
        """The columns of the key of an item."""
        return {"id": number, "part": 0} if "composite" in self.traits else {"id": number}

    def new(self, number: int, given: dict[str, t.Any]) -> t.Any:
        """Make an item."""
        cls = self.special if self.special is not None and number == 2 else self.item
        return cls(**self.key(number), **given)

    def catalog(self) -> str:
        """Both models, each with the other as an include."""
        schema = f"    schema: {__name__}:ItemSchema\n" if self.example.has_schema else ""
        watched = ", ".join(f"c_{name}" for name in self.example.columns)
        owner = "parent.owner" if "led" in self.traits else "owner"
        touches = "    touches: [parent]\n" if "touching" in self.traits else ""
        return (
            "version: 1\nchannels:\n"
            f"  items:\n    model: {__name__}:Item\n{schema}    owner: {owner}\n{touches}"
            "    events:\n      created:\n      updated:\n      deleted:\n"
            f"      turned: {{when: {{changed: [{watched}]}}}}\n    includes: [parent, tags]\n"
            f"  parents:\n    model: {__name__}:Parent\n    owner: owner\n"
            "    events: [created, updated, deleted]\n    includes: [items, up]\n"
        )

    @contextlib.contextmanager
    def open(self, url: str, folder: Path, mode: str) -> t.Iterator[t.Any]:
        """Yield the state (None without us) inside an app's context, on empty tables."""
        module = t.cast("t.Any", sys.modules[__name__])
        module.Item, module.Parent, module.ItemSchema = self.item, self.parent, self.schema
        app = Flask(__name__, instance_path=str(folder / "instance"))
        catalog = folder / "webhooks.yaml"
        catalog.write_text(self.catalog())
        app.config.update(SECRET_KEY="test", SQLALCHEMY_DATABASE_URI=url, WEBHOOKS_CATALOG=str(catalog))
        self.db.init_app(app)
        if mode != "without":
            Doorless(app, self.db)
        with app.app_context():
            if self.db.engine.dialect.name == "sqlite":
                make_transactional(self.db.engine)
            self.db.drop_all()
            self.db.create_all()
            state = states.state_of(app) if mode != "without" else None
            if state is not None and mode == "subscribed":
                for owner in OWNERS:
                    subscribe(state, NOWHERE, "items.*", owner=owner, includes=["changes", "parent", "tags"])
                    subscribe(state, NOWHERE, "parents.*", owner=owner, includes=["changes", "items", "up"])
            try:
                yield state
            finally:
                self.db.session.remove()
                self.db.drop_all()
                self.db.engine.dispose()
                if state is not None:
                    state.transport.close()


class Play:
    """Does what an example says, and keeps what came of it."""

    def __init__(
        self, house: House, state: t.Any = None, committed: t.Callable[[bool], None] = lambda _: None
    ) -> None:
        self.house, self.session, self.state = house, house.db.session, state
        self.committed = committed
        """Called after each commit, with whether something was muted."""
        self.was_muted = False
        self.seen: list[str] = []
        """What the host sees: errors, and what statements return."""
        self.kept: list[t.Any] = []
        """What was found: SQLAlchemy holds rows weakly, and whether they are read again shall not hang on that."""

    def run(self) -> tuple[list[str], dict[str, list[str]]]:
        """Return what was seen, and all rows at the end."""
        for transaction in self.house.example.transactions:
            for write in transaction:
                self._try(lambda write=write: self._write(*write))
            self._try(self._commit)
        with self.house.db.engine.connect() as connection:
            # As the database has it: types that cannot read what was written shall not fail here.
            rows = {
                name: sorted(str(tuple(row)) for row in connection.exec_driver_sql(f"SELECT * FROM {name}"))
                for name in (
                    "parent",
                    "item",
                    "tag",
                    "item_tag",
                    *["special"] * ("joined" in self.house.traits),
                )
            }
        return self.seen, rows

    def _try(self, work: t.Callable[[], t.Any]) -> None:
        try:
            work()
            self.seen.append("")
        except Exception as error:  # whatever comes, the host sees it, and rolls back
            self.seen.append(type(error).__name__)
            self.session.rollback()
            self.was_muted = False

    def _commit(self) -> None:
        self.session.commit()
        was_muted, self.was_muted = self.was_muted, False
        self.committed(was_muted)

    def _get(self, number: int) -> t.Any:
        found = self.session.get(self.house.item, tuple(self.house.key(number).values()))
        self.kept.append(found)
        return found

    def _new(self, number: int, given: dict[str, t.Any]) -> t.Any:
        self.kept.append(made := self.house.new(number, given))
        return made

    def _parent(self, number: int) -> t.Any:
        found = self.session.get(self.house.parent, number)
        if found is None:
            found = self.house.parent(id=number, owner="1")
            self.session.add(found)
        self.kept.append(found)
        return found

    def _write(self, how: str, key: int, values: dict[str, t.Any]) -> None:
        given = {f"c_{name}": value for name, value in values.items()}
        simple = {
            "flush": self.session.flush,
            "commit": self._commit,
            "expire": self._expire,
            "read": self._read,
        }
        if how in simple:
            simple[how]()
        elif how in IN_BULK:
            self._bulk(how, key, given)
        elif how in ("by relationship", "under"):
            self._lead(how, key, given)
        elif how in ("add", "merge"):
            self.kept.append(getattr(self.session, how)(self._new(key, given)))
        elif how == "in a savepoint":
            with self.session.begin_nested():
                self._change("assign", key, given)
        elif how == "rolled back":
            nested = self.session.begin_nested()
            self._change("assign", key, given)
            self.session.flush()
            nested.rollback()
        elif how == "muted":
            self.was_muted = True
            with self._muted():
                self._change("assign", key, given)
        else:
            self._change(how, key, given)

    def _expire(self) -> None:
        self.session.flush()
        self.session.expire_all()

    def _read(self) -> None:
        house, session = self.house, self.session
        self.kept += session.scalars(sa.select(house.item)).all()
        self.kept += [(each, list(each.items)) for each in session.scalars(sa.select(house.parent))]

    def _lead(self, how: str, key: int, given: dict[str, t.Any]) -> None:
        parent = self._parent(key)
        if how == "under":
            parent.up, parent.owner = self._parent(key % 3 + 1), OWNERS[parent.owner == OWNERS[0]]
        else:
            parent.items.append(self._get(key) or self._new(key, given))

    @contextlib.contextmanager
    def _muted(self) -> t.Iterator[None]:
        if self.state is not None:
            with muted(self.session()):
                yield
        else:  # it flushes
            self.session.flush()
            yield
            self.session.flush()

    def _change(self, how: str, key: int, given: dict[str, t.Any]) -> None:
        found, session = self._get(key), self.session
        if found is None:
            return
        if how == "expunge":
            session.flush()
            session.expunge(found)
        elif how == "refresh":
            session.flush()
            session.refresh(found)
        elif how == "untag":
            found.tags.clear()
        elif how == "tag":
            number = key % 2 + 1
            found.tags.append(session.get(self.house.tag, number) or self.house.tag(id=number))
        else:
            self._assign(how, found, given)

    def _assign(self, how: str, found: t.Any, given: dict[str, t.Any]) -> None:
        if how == "delete":
            self.session.delete(found)
        elif how == "move":
            found.owner = OWNERS[found.owner == OWNERS[0]]
        elif how == "detached":
            self.session.flush()
            self.session.expunge(found)
        for name, value in given.items():
            setattr(found, name, value)
        if how == "detached":
            self.kept.append(self.session.merge(found))

    def _bulk(self, how: str, key: int, given: dict[str, t.Any]) -> None:
        house, session = self.house, self.session
        item, execute = house.item, self._execute
        some = sa.update(item).where(item.id >= key).values(owner="2", **given)
        gone = sa.delete(item).where(item.id >= key)
        rows = [{**house.key(number), **given} for number in (key, key + 3)]
        if how == "bulk insert":
            execute(sa.insert(item), rows)
        elif how == "insert returning":
            self.kept += execute(sa.insert(item).returning(item), rows)
        elif how == "update many":
            execute(sa.update(item), rows)
        elif how == "bulk_save_objects":
            self.was_muted = True  # its changes have no events
            session.bulk_save_objects([house.new(key, given)])
        elif how == "bulk rolled back":
            nested = session.begin_nested()
            execute(some)
            nested.rollback()
        elif how.endswith("read and rolled back"):
            nested = session.begin_nested()
            execute(*((some,) if "update" in how else (sa.insert(item), rows)))
            self._read()
            nested.rollback()
        elif how == "bulk in a savepoint":
            with session.begin_nested():
                execute(some)
        elif how.startswith(("upsert", "insert or")):
            execute(self._upsert(how, key, given))
        else:
            statement: t.Any = gone if "delete" in how else some
            if "returning" in how:
                statement = statement.returning(item.id, item.owner)
            way: t.Any = {"unseen": False, "fetched": "fetch"}.get(how.split()[-1], "auto")
            execute(statement.execution_options(synchronize_session=way))

    def _execute(self, statement: t.Any, *given: t.Any) -> list[t.Any]:
        result = self.session.execute(statement, *given)
        if isinstance(result, sa.CursorResult) and not result.returns_rows:
            self.seen.append(str(result.rowcount))
            return []
        rows = list(result)
        self.seen += sorted(
            str([each if isinstance(each, str | int) else type(each).__name__ for each in row])
            for row in rows
        )
        return rows

    def _upsert(self, how: str, key: int, given: dict[str, t.Any]) -> t.Any:
        name = self.session.get_bind().dialect.name
        insert = DIALECTS[name].insert(self.house.item).values(**self.house.key(key), owner="1", **given)
        if name in ("mysql", "mariadb"):
            wanted = {"owner": "2", **given}
            if how == "upsert":
                return insert.on_duplicate_key_update(wanted)
            self.was_muted = True  # the columns that it leaves out are unknown
            return insert.prefix_with("IGNORE")
        if how == "upsert":
            return insert.on_conflict_do_update(index_elements=self.house.keys, set_={"owner": "2", **given})
        return insert.on_conflict_do_nothing()
