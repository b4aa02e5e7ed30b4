"""The include `changes` has the names and forms of the schema that makes `data`, and shows nothing else."""

from __future__ import annotations

import base64
import enum
import functools
import json
import typing as t
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import marshmallow as ma
import pytest
import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, composite, mapped_column, relationship, synonym

from flask_webhooks.state import AppState
from tests.capture.conftest import NOWHERE, capturing, last_changes
from tests.stage import recorded, subscribe

mf = ma.fields


class Base(DeclarativeBase):
    """Root of the models."""


db = SQLAlchemy(model_class=Base)


class Rank(enum.Enum):
    """Its names and values differ."""

    LOW = "low"
    HIGH = "high"


class Hashed(sa.TypeDecorator[str]):
    """The host assigns plain text, and the database has something else."""

    impl = sa.String(60)
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        return None if value is None else base64.b64encode(value.encode()).decode()


class Spot(t.NamedTuple):
    """Two columns that are one value."""

    x: int
    y: int


class Firm(db.Model):  # type: ignore[name-defined]
    """What members belong to."""

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(30))


class Member(db.Model):  # type: ignore[name-defined]
    """Has more than others may see."""

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(sa.String(30), default="1")
    name: Mapped[str] = mapped_column(sa.String(30), default="")
    password_hash: Mapped[str] = mapped_column(Hashed, default="old secret")
    rank: Mapped[Rank] = mapped_column(sa.Enum(Rank), default=Rank.LOW)
    fee: Mapped[Decimal] = mapped_column(sa.Numeric(12, 2), default=Decimal("1.00"))
    seen_at: Mapped[datetime] = mapped_column(sa.DateTime, default=datetime.fromisoformat("2026-01-02"))
    _email: Mapped[str] = mapped_column("email", sa.String(30), default="a@example.com")
    phone: Mapped[str] = mapped_column(sa.String(30), default="0123456")
    is_public: Mapped[bool] = mapped_column(default=False)
    note: Mapped[str | None] = mapped_column(sa.String(30), default=None)
    facts: Mapped[dict[str, t.Any]] = mapped_column(sa.JSON, default=lambda: {"hair": "red", "pin": "1234"})
    photo: Mapped[bytes | None] = mapped_column(sa.LargeBinary, default=None)
    x: Mapped[int] = mapped_column(default=0)
    y: Mapped[int] = mapped_column(default=0)
    spot: Mapped[Spot] = composite("x", "y")
    firm_id: Mapped[int | None] = mapped_column(sa.ForeignKey("firm.id"), default=None)
    firm: Mapped[Firm | None] = relationship()
    nick = synonym("name")

    @property
    def email(self) -> str:
        """A plain way to a column."""
        return self._email

    @functools.cached_property
    def badge(self) -> str:
        """Made of a property."""
        return f"{self.email}!"

    def to_dict(self) -> dict[str, t.Any]:
        """What a channel without a schema may send."""
        found = {"id": self.id, "called": self.name, "note": self.note, "firm": self.firm and self.firm.name}
        return {key: value for key, value in found.items() if value is not None}

    @hybrid_property
    def card(self) -> str:
        """Made of a column, and of one that the schema hides."""
        return f"{self.name}/{self.rank.value}"


class FirmSchema(ma.Schema):
    """A firm inside a member."""

    id = mf.Integer()
    name = mf.String()


class MemberSchema(ma.Schema):
    """Shows some, under other names and in other forms."""

    id = mf.Integer()
    fullName = mf.String(attribute="name")
    nick = mf.String()
    rank = mf.Enum(Rank, data_key="Rank", by_value=True)
    fee = mf.Decimal(as_string=True, places=2)
    seen = mf.DateTime(attribute="seen_at", format="%d.%m.%Y")
    email = mf.String()
    card = mf.String()
    spot = mf.Function(lambda row: f"{row.x},{row.y}")
    loud = mf.Method("shout")
    hair = mf.String(attribute="facts.hair")
    firm = mf.Nested(FirmSchema)
    firm_name = mf.Pluck(FirmSchema, "name", attribute="firm", dump_only=True)
    kind = mf.Constant("member")
    phone = mf.String(load_only=True)

    def shout(self, row: Member) -> str:
        return row.name.upper()


class ShortSchema(MemberSchema):
    """Of one event."""

    class Meta:
        exclude = ("fullName", "nick", "card", "loud", "email")


class MaskingSchema(ma.Schema):
    """Its hook decides what is shown, by what else the row has."""

    id = mf.Integer()
    name = mf.String()
    phone = mf.String()
    note = mf.String()
    is_public = mf.Boolean()
    password_hash = mf.String()

    @ma.post_dump
    def mask(self, data: dict[str, t.Any], **_: t.Any) -> dict[str, t.Any]:
        data.pop("password_hash")
        if not data["is_public"]:
            data["phone"] = "***"
        return {key: value for key, value in data.items() if value is not None}


def label_of(member: Member) -> str:
    """Stands in the module, and reads."""
    return member.badge


class DeepSchema(ma.Schema):
    """What its fields read, others read for them."""

    id = mf.Integer()
    label = mf.Method("make")
    firm_name = mf.Function(lambda member: member.firm.name)
    size = mf.String(attribute="facts.size")

    def make(self, member: Member) -> str:
        return self.inner(member)

    def inner(self, member: Member) -> str:
        return label_of(member)


class DeepCamelSchema(DeepSchema):
    """Its hook renames."""

    @ma.post_dump
    def rename(self, data: dict[str, t.Any], **_: t.Any) -> dict[str, t.Any]:
        return {key.replace("_n", "N"): value for key, value in data.items()}


class CamelSchema(ma.Schema):
    """Its hook renames all."""

    id = mf.Integer()
    is_public = mf.Boolean()
    note = mf.String()

    @ma.post_dump
    def rename(self, data: dict[str, t.Any], **_: t.Any) -> dict[str, t.Any]:
        return {key.replace("is_p", "isP"): value for key, value in data.items()}


class Plain(db.Model):  # type: ignore[name-defined]
    """Of a channel without a schema."""

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(sa.String(30), default="1")
    called: Mapped[str] = mapped_column("odd_name", sa.String(30), default="")
    rank: Mapped[Rank] = mapped_column(sa.Enum(Rank), default=Rank.LOW)
    photo: Mapped[bytes | None] = mapped_column(sa.LargeBinary, default=None)


HERE = __name__
CATALOG = f"""\
version: 1
defaults: {{owner: owner}}
channels:
  members:
    model: {HERE}:Member
    schema: {HERE}:MemberSchema
    events:
      updated:
      rose: {{when: {{rank: {{from: low}}}}, format: entity}}
      promoted: {{when: {{rank: high}}, schema: {HERE}:ShortSchema, format: entity}}
      hushed: {{when: {{password_hash: {{from: b2xkIHNlY3JldA==}}}}, format: entity}}
  masked: {{model: {HERE}:Member, schema: {HERE}:MaskingSchema, events: [updated]}}
  deep: {{model: {HERE}:Member, schema: {HERE}:DeepSchema, events: [updated]}}
  deepcamels: {{model: {HERE}:Member, schema: {HERE}:DeepCamelSchema, events: [updated]}}
  dicts: {{model: {HERE}:Member, data: to_dict, events: [updated]}}
  camels: {{model: {HERE}:Member, schema: {HERE}:CamelSchema, events: [updated]}}
  plain: {{model: {HERE}:Plain, events: [updated]}}
"""


@pytest.fixture
def club(empty_database_url: str, tmp_path: Path) -> t.Iterator[AppState]:
    """An app with a member and a plain row, and a subscription that includes `changes`."""
    with capturing(db, CATALOG, empty_database_url, tmp_path) as state:
        subscribe(state, NOWHERE, "*", includes=["changes"])
        db.session.add_all([Firm(id=1, name="one"), Firm(id=2, name="two")])
        db.session.flush()
        db.session.add_all([Member(id=1, firm_id=1), Plain(id=1)])
        db.session.commit()
        yield state


def change(**columns: t.Any) -> None:
    """Change the member, and commit."""
    member = db.session.get_one(Member, 1)
    for name, value in columns.items():
        setattr(member, name, value)
    db.session.commit()


def everything(state: AppState) -> str:
    """All that was recorded."""
    return " ".join(f"{each.data} {each.extras} {each.status}" for each in recorded(state))


def test_a_column_that_the_schema_hides_is_not_there(club: AppState) -> None:
    change(password_hash="new secret", phone="999")

    assert last_changes(club, "members.updated") == {}
    assert "secret" not in everything(club)
    assert "999" not in everything(club)


def test_a_field_shows_it_under_its_key_and_in_its_form(club: AppState) -> None:
    change(name="Ada", rank=Rank.HIGH, fee=Decimal("12.5"), seen_at=datetime.fromisoformat("2026-03-04"))

    assert last_changes(club, "members.updated") == {
        "fullName": ["", "Ada"],
        "nick": ["", "Ada"],
        "loud": ["", "ADA"],
        "card": ["/low", "Ada/high"],
        "Rank": ["low", "high"],
        "fee": ["1.00", "12.50"],
        "seen": ["02.01.2026", "04.03.2026"],
    }


def test_a_property_a_function_and_a_part_of_json_stand_for_what_they_read(club: AppState) -> None:
    change(_email="b@example.com", x=5, facts={"hair": "grey", "pin": "9999"})

    assert last_changes(club, "members.updated") == {
        "email": ["a@example.com", "b@example.com"],
        "spot": ["0,0", "5,0"],
        "hair": ["red", "grey"],
    }
    assert "9999" not in everything(club)


def test_a_part_of_json_that_stayed_is_not_there(club: AppState) -> None:
    change(facts={"hair": "red", "pin": "9999"})

    assert last_changes(club, "members.updated") == {}


def test_a_row_that_leads_elsewhere_is_named_without_values(club: AppState) -> None:
    change(firm_id=2)

    [message] = [each for each in recorded(club) if each.event == "members.updated"]
    assert json.loads(message.data)["firm"] == {"id": 2, "name": "two"}
    assert json.loads(message.extras or "")["changes"] == {"firm": {}, "firm_name": {}}


def test_what_the_field_shows_alike_is_named_without_values(club: AppState) -> None:
    change(seen_at=datetime.fromisoformat("2026-01-02T23:00"))

    [message] = [each for each in recorded(club) if each.event == "members.updated"]
    assert json.loads(message.extras or "")["changes"] == {"seen": {}}


def test_the_schema_of_the_event_counts(club: AppState) -> None:
    change(rank=Rank.HIGH, name="Ada")

    assert last_changes(club, "members.promoted") == {"Rank": ["low", "high"]}


def test_what_a_hook_takes_out_is_not_there(club: AppState) -> None:
    change(password_hash="new secret", name="Ada", note="n")

    assert last_changes(club, "masked.updated") == {"name": ["", "Ada"], "note": [None, "n"]}


def test_what_a_hook_masked_then_stays_masked(club: AppState) -> None:
    change(phone="77", is_public=True)

    assert last_changes(club, "masked.updated") == {"is_public": [False, True], "phone": ["***", "77"]}

    change(phone="0123456", is_public=False)

    assert last_changes(club, "masked.updated") == {"is_public": [True, False], "phone": ["77", "***"]}
    assert "0123456" not in everything(club)


def test_what_a_hook_masks_in_both_is_named_without_values(club: AppState) -> None:
    change(phone="77")

    message = [each for each in recorded(club) if each.event == "masked.updated"][-1]
    assert json.loads(message.extras or "")["changes"] == {"phone": {}}


def test_what_a_hook_renames_has_its_new_name(club: AppState) -> None:
    change(is_public=True)

    assert last_changes(club, "camels.updated") == {"isPublic": [False, True]}


def test_without_a_schema_it_is_the_columns_that_data_has(club: AppState) -> None:
    plain = db.session.get_one(Plain, 1)
    plain.called, plain.rank, plain.photo = "x", Rank.HIGH, b"new"
    db.session.commit()

    assert last_changes(club, "plain.updated") == {"called": ["", "x"], "rank": ["low", "high"]}


def shown_changes(state: AppState, event: str) -> dict[str, t.Any]:
    """The include `changes` of the last message of an event."""
    message = [each for each in recorded(state) if each.event == event][-1]
    return t.cast("dict[str, t.Any]", json.loads(message.extras or "")["changes"])


def test_what_code_reads_by_other_code_counts(club: AppState) -> None:
    change(_email="b@example.com")

    pair = {"from": "a@example.com!", "to": "b@example.com!"}
    assert shown_changes(club, "deep.updated") == shown_changes(club, "deepcamels.updated") == {"label": pair}


def test_what_cannot_be_known_of_before_is_named_without_values(club: AppState) -> None:
    change(firm_id=2, name="Ada", facts={"hair": "red", "pin": "1234", "size": "L"})

    assert shown_changes(club, "deep.updated") == {"firm_name": {}, "size": {}}
    assert shown_changes(club, "deepcamels.updated") == {"firmName": {}, "size": {}}
    assert shown_changes(club, "dicts.updated") == {"called": {}, "firm": {}}


def test_what_a_method_had_left_out_is_named_without_values(club: AppState) -> None:
    change(note="n", password_hash="new secret")

    assert shown_changes(club, "dicts.updated") == {"note": {}}


def test_bulk_statements_too(club: AppState) -> None:
    db.session.execute(sa.update(Member).values(password_hash="new secret", name="Ada"))
    db.session.commit()

    assert last_changes(club, "members.updated") == {
        "fullName": ["", "Ada"],
        "nick": ["", "Ada"],
        "loud": ["", "ADA"],
        "card": ["/low", "Ada/low"],
    }
    assert "secret" not in everything(club)


def test_the_state_of_the_format_entity_comes_from_data_or_the_catalogue(club: AppState) -> None:
    change(rank=Rank.HIGH, password_hash="new secret")

    states = {each.event: each.status for each in recorded(club)}
    assert states["members.promoted"] == "high"
    assert states["members.rose"] == "high"  # by the field, which has another key than the column
    assert states["members.hushed"] is None


def test_a_property_called_status_is_shown_only_if_data_has_it(
    club: AppState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may show any column, also one that the schema hides; without a schema there is nothing that hides it."""
    monkeypatch.setattr(Member, "status", property(lambda row: row.password_hash), raising=False)
    change(name="Bea")

    assert {each.event: each.status for each in recorded(club)}["members.updated"] is None


def test_a_row_stays_as_it_is(club: AppState) -> None:
    """What the row was is dumped from a copy: the host's object is not touched."""
    member = db.session.get_one(Member, 1)
    member.name = "Ada"
    db.session.commit()

    assert not db.session.dirty
    assert member.name == "Ada"
    assert member in db.session
