"""For every column type and schema field, the body is valid by the JSON Schema that we publish for it."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import ipaddress
import json
import typing as t
from decimal import Decimal

import hypothesis
import jsonschema
import marshmallow as ma
import pytest
import sqlalchemy as sa
from hypothesis import strategies as st
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.dialects.postgresql import Range
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from flask_webhooks import payload
from flask_webhooks.bindings.json_types import mismatch, of_columns, of_schema
from flask_webhooks.bindings.serializers import column_renderer

mf = ma.fields


class Word(enum.Enum):
    """Values of several kinds."""

    LOW = "low"
    HIGH = "high"


class Number(enum.IntEnum):
    """Numbers."""

    ONE = 1
    TWO = 2


class Mixed(enum.Enum):
    """Anything."""

    NOTHING = None
    PAIR = (1, 2)
    AMOUNT = Decimal("1.50")


class Upper(sa.TypeDecorator[str]):
    """Of the host's, and plain."""

    impl = sa.String(20)
    cache_ok = True


class Coded(sa.TypeDecorator[t.Any]):
    """Of the host's: text in the database, a number in Python."""

    impl = sa.String(20)
    cache_ok = True

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> int | None:
        return None if value is None else len(value)


UNSHRUNK = [hypothesis.Phase.explicit, hypothesis.Phase.reuse, hypothesis.Phase.generate]
"""Rows are wide: to make a failing one small takes minutes, and the message names the column anyway."""

naive = st.datetimes()
aware = st.datetimes(timezones=st.just(datetime.UTC))
decimals = st.decimals(allow_nan=False, allow_infinity=False, places=2)
floats = st.floats(allow_nan=False, allow_infinity=False)
addresses = st.ip_addresses()
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | floats | st.text(max_size=5),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=3), inside, max_size=3),
    max_leaves=5,
)
ranges = st.builds(Range, st.none() | st.integers(0, 5), st.none() | st.integers(6, 9)) | st.just(
    Range(empty=True)
)

COLUMNS: dict[str, tuple[t.Any, st.SearchStrategy[t.Any]]] = {
    "boolean": (sa.Boolean(), st.booleans()),
    "integer": (sa.BigInteger(), st.integers()),
    "numeric": (sa.Numeric(12, 2), decimals),
    "floating": (sa.Float(), floats),
    "exact": (sa.Float(asdecimal=True), decimals),
    "inexact": (sa.Numeric(asdecimal=False), floats),
    "string": (sa.String(20), st.text()),
    "text": (sa.Text(), st.text()),
    "uuid": (sa.Uuid(), st.uuids()),
    "uuid_text": (sa.Uuid(as_uuid=False), st.uuids().map(str)),
    "naive": (sa.DateTime(), naive),
    "aware": (sa.DateTime(timezone=True), aware),
    "date": (sa.Date(), st.dates()),
    "time": (sa.Time(), st.times()),
    "interval": (sa.Interval(), st.timedeltas()),
    "word": (sa.Enum(Word), st.sampled_from(Word)),
    "number": (sa.Enum(Number), st.sampled_from(Number)),
    "mixed": (sa.Enum(Mixed), st.sampled_from(Mixed)),
    "names": (sa.Enum("a", "b"), st.sampled_from("ab")),
    "json": (sa.JSON(), anything),
    "jsonb": (pg.JSONB(), anything),
    "hstore": (pg.HSTORE(), st.dictionaries(st.text(), st.none() | st.text())),
    "integers": (pg.ARRAY(sa.Integer), st.lists(st.none() | st.integers() | st.lists(st.integers()))),
    "flat": (pg.ARRAY(sa.Numeric, dimensions=1), st.lists(st.none() | decimals)),
    "grid": (
        pg.ARRAY(sa.Enum(Number), dimensions=2),
        st.lists(st.lists(st.none() | st.sampled_from(Number))),
    ),
    "blobs": (pg.ARRAY(sa.LargeBinary), st.lists(st.binary())),
    "jsons": (pg.ARRAY(sa.JSON), st.lists(anything)),
    "range": (pg.INT4RANGE(), ranges),
    "multirange": (pg.INT4MULTIRANGE(), st.lists(ranges)),
    "inet": (pg.INET(), addresses | st.just(ipaddress.ip_interface("10.0.0.1/8"))),
    "cidr": (pg.CIDR(), st.just(ipaddress.ip_network("10.0.0.0/8"))),
    "macaddr": (pg.MACADDR(), st.just("08:00:2b:01:02:03")),
    "bit": (pg.BIT(3), st.just("101")),
    "upper": (Upper(), st.text()),
    "coded": (Coded(), st.integers()),
}


class Base(DeclarativeBase):
    """Root of the models."""


class Team(Base):
    """What rows belong to."""

    __tablename__ = "team"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(20))


def made(suffix: str, nullable: bool) -> type[Base]:
    """A model that has every type of column."""
    columns = {name: mapped_column(kind, nullable=nullable) for name, (kind, _) in COLUMNS.items()}
    names = {"__tablename__": f"every_{suffix}", "id": mapped_column(sa.Integer, primary_key=True), **columns}
    return t.cast("type[Base]", type(f"Every{suffix}", (Base,), names))


NULLABLE, STRICT = made("nullable", True), made("strict", False)


def is_valid(schema: t.Any, data: object) -> None:
    """Fail unless both our own check and that of others say that data is valid."""
    written = json.loads(payload.encode(data))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(written)
    assert mismatch(schema, written) == ""


class TestColumns:
    @pytest.mark.parametrize("model", [NULLABLE, STRICT], ids=["nullable", "strict"])
    @hypothesis.given(data=st.data())
    @hypothesis.settings(max_examples=25, phases=UNSHRUNK)
    def test_every_row_is_valid(self, model: type[Base], data: st.DataObject) -> None:
        mapper: t.Any = sa.inspect(model)
        rare = st.none() if model is NULLABLE else st.nothing()
        values = {name: data.draw(rare | strategy) for name, (_, strategy) in COLUMNS.items()}

        row = column_renderer(mapper)(model(id=1, **values))

        assert row.keys() == {"id", *COLUMNS}
        is_valid(of_columns(mapper), row)

    def test_enums_say_their_values_and_whether_they_may_be_null(self) -> None:
        found = of_columns(t.cast("t.Any", sa.inspect(NULLABLE)))["properties"]
        strict = of_columns(t.cast("t.Any", sa.inspect(STRICT)))["properties"]

        assert found["word"] == {"type": ["string", "null"], "enum": ["low", "high", None]}
        assert strict["number"] == {"type": "integer", "enum": [1, 2]}
        assert strict["mixed"] == {"enum": [None, [1, 2], "1.50"]}


class TeamSchema(ma.Schema):
    """Nested."""

    id = mf.Integer()
    name = mf.String()


class Shouted(mf.String):
    """A class of the host's, that writes something else than text."""

    def _serialize(self, value: t.Any, attr: str | None, obj: t.Any, **kwargs: t.Any) -> t.Any:
        return {"text": value}


teams = st.builds(Team, id=st.integers(), name=st.text())

FIELDS: dict[str, tuple[mf.Field[t.Any], st.SearchStrategy[t.Any]]] = {
    "boolean": (mf.Boolean(), st.booleans()),
    "integer": (mf.Integer(), st.integers()),
    "integer_text": (mf.Integer(as_string=True), st.integers()),
    "floating": (mf.Float(), floats),
    "float_text": (mf.Float(as_string=True), floats),
    "decimal": (mf.Decimal(), decimals),
    "decimal_text": (mf.Decimal(as_string=True, places=1), decimals),
    "lasts": (mf.TimeDelta(), st.timedeltas()),
    "lasts_exactly": (mf.TimeDelta(precision="microseconds"), st.timedeltas()),
    "string": (mf.String(), st.text()),
    "uuid": (mf.UUID(), st.uuids()),
    "email": (mf.Email(), st.emails()),
    "url": (mf.Url(), st.just("https://example.com/")),
    "path": (mf.Url(relative=True), st.just("/a")),
    "moment": (mf.DateTime(), naive | aware),
    "moment_rfc": (mf.DateTime(format="rfc"), aware),
    "moment_number": (mf.DateTime(format="timestamp"), aware),
    "moment_ms": (mf.DateTime(format="timestamp_ms"), aware),
    "moment_own": (mf.DateTime(format="%Y"), aware),
    "naive": (mf.NaiveDateTime(), naive),
    "aware": (mf.AwareDateTime(), aware),
    "date": (mf.Date(), st.dates()),
    "date_own": (mf.Date(format="%d.%m.%Y"), st.dates()),
    "time": (mf.Time(), st.times()),
    "time_own": (mf.Time(format="%H"), st.times()),
    "word": (mf.Enum(Word), st.sampled_from(Word)),
    "word_value": (mf.Enum(Word, by_value=True), st.sampled_from(Word)),
    "word_field": (mf.Enum(Word, by_value=mf.String()), st.sampled_from(Word)),
    "number": (mf.Enum(Number, by_value=True), st.sampled_from(Number)),
    "number_field": (mf.Enum(Number, by_value=mf.Integer(as_string=True)), st.sampled_from(Number)),
    "mixed": (mf.Enum(Mixed, by_value=True), st.sampled_from(Mixed)),
    "ip": (mf.IP(), addresses),
    "interface": (mf.IPInterface(), st.just(ipaddress.ip_interface("10.0.0.1/8"))),
    "free": (mf.Dict(), st.dictionaries(st.text(), anything)),
    "typed": (mf.Dict(mf.String(), mf.Integer()), st.dictionaries(st.text(), st.none() | st.integers())),
    "list": (mf.List(mf.Integer()), st.lists(st.none() | st.integers())),
    "lists": (mf.List(mf.List(mf.Date())), st.lists(st.none() | st.lists(st.dates()))),
    "tuple": (mf.Tuple((mf.Integer(), mf.String())), st.tuples(st.integers(), st.text())),
    "raw": (mf.Raw(), anything),
    "constant": (mf.Constant("x"), st.just(1)),
    "team": (mf.Nested(TeamSchema), teams),
    "teams": (mf.Nested(TeamSchema, many=True), st.lists(teams)),
    "teams_too": (mf.Nested(TeamSchema(many=True)), st.lists(teams)),
    "listed_teams": (mf.List(mf.Nested(TeamSchema)), st.lists(st.none() | teams)),
    "team_name": (mf.Pluck(TeamSchema, "name"), teams),
    "team_names": (mf.Pluck(TeamSchema, "name", many=True), st.lists(teams)),
    "computed": (mf.Function(lambda row: [row.integer]), st.just(1)),
    "shouted": (Shouted(), st.text()),
    "defaulted": (mf.Integer(dump_default=7), st.just(1)),
    "renamed": (mf.String(data_key="re-named"), st.text()),
}
EverySchema = ma.Schema.from_dict({name: field for name, (field, _) in FIELDS.items()})


class TestFields:
    @hypothesis.given(data=st.data())
    @hypothesis.settings(max_examples=40, phases=UNSHRUNK)
    def test_every_dump_is_valid(self, data: st.DataObject) -> None:
        schema = EverySchema()
        is_missing = data.draw(st.sets(st.sampled_from(sorted(FIELDS)), max_size=3)) - {"integer"}
        values = {
            name: data.draw(st.none() | strategy)
            for name, (_, strategy) in FIELDS.items()
            if name not in is_missing
        }

        is_valid(of_schema(schema), schema.dump(t.cast("t.Any", type("Row", (), values)())))

    def test_a_column_that_is_never_null_says_so(self) -> None:
        class Row(Base):
            __tablename__ = "row"
            id: Mapped[int] = mapped_column(primary_key=True)
            name: Mapped[str | None] = mapped_column(sa.String(20))
            team_id: Mapped[int] = mapped_column(sa.ForeignKey("team.id"))
            team: Mapped[Team] = relationship()

        schema = ma.Schema.from_dict(
            {"id": mf.Integer(), "name": mf.String(), "team": mf.Nested(TeamSchema), "kind": mf.String()}
        )()
        found = of_schema(schema, t.cast("t.Any", sa.inspect(Row)))["properties"]

        assert found["id"] == {"type": "integer"}
        assert found["name"] == {"type": ["string", "null"]}
        assert found["team"]["type"] == ["object", "null"]

    def test_a_boolean_of_a_column_that_is_none(self) -> None:
        """Marshmallow dumps what it is given, so nothing is promised; of a column that is one, that is."""

        class Flagged(Base):
            __tablename__ = "flagged"
            id: Mapped[int] = mapped_column(primary_key=True)
            number: Mapped[int]
            word: Mapped[str] = mapped_column(sa.String(5))
            real: Mapped[bool]

        schema = ma.Schema.from_dict({name: mf.Boolean() for name in ("number", "word", "real")})()
        found = of_schema(schema, t.cast("t.Any", sa.inspect(Flagged)))

        is_valid(found, schema.dump(Flagged(id=1, number=1, word="yes", real=True)))
        assert found["properties"]["real"] == {"type": "boolean"}

    def test_a_hook_may_make_anything_null(self) -> None:
        class Hooked(TeamSchema):
            @ma.post_dump
            def mask(self, data: dict[str, t.Any], **_: t.Any) -> dict[str, t.Any]:
                return {**data, "name": None, "more": 1}

        is_valid(of_schema(Hooked(), t.cast("t.Any", sa.inspect(Team))), Hooked().dump(Team(id=1, name="a")))


@dataclasses.dataclass
class Case:
    """A value that does not fit."""

    schema: dict[str, t.Any]
    value: t.Any
    message: str


@pytest.mark.parametrize(
    "case",
    [
        Case({"type": "integer"}, True, "data is true, and not integer"),
        Case({"type": ["string", "null"]}, 1, "data is 1, and not string or null"),
        Case({"type": "string", "enum": ["a"]}, "b", 'data is "b", and not one of "a"'),
        Case(
            {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "number"}}}},
            {"a": [1, 1.5, "x"]},
            'data.a[2] is "x", and not number',
        ),
        Case({"anyOf": [{"type": "null"}, {"type": "string"}]}, 1, "data is 1, and not null"),
    ],
    ids=lambda case: case.message,
)
def test_what_does_not_fit_is_named(case: Case) -> None:
    assert mismatch(case.schema, case.value) == case.message
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(case.value, case.schema)
