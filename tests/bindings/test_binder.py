"""Names in the catalogue, resolved in Python: dumps, owners, includes, touches."""

from __future__ import annotations

import datetime
import sys
import typing as t
from decimal import Decimal
from pathlib import Path

import marshmallow as ma
import pytest
from sqlalchemy import ForeignKey, Integer, LargeBinary, String, TypeDecorator
from sqlalchemy.exc import SAWarning
from sqlalchemy.orm import (
    DeclarativeBase,
    DynamicMapped,
    Mapped,
    attribute_keyed_dict,
    mapped_column,
    relationship,
)

from flask_webhooks.bindings import BoundChannel, bind, describe, open_catalog
from flask_webhooks.catalog import Kind, load
from flask_webhooks.errors import CatalogError, PayloadError

SHOP = Path(__file__).parents[1] / "catalog"


@pytest.fixture(autouse=True, scope="module")
def _shop() -> t.Iterator[None]:
    sys.path.insert(0, str(SHOP))
    yield
    sys.path.remove(str(SHOP))


class Base(DeclarativeBase):
    pass


class Shouted(TypeDecorator[str]):
    """Its Python values are the app's own business."""

    impl = String(9)
    cache_ok = True


class Folder(Base):
    __tablename__ = "folder"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant: Mapped[int | None]
    content: Mapped[bytes | None] = mapped_column(LargeBinary)
    lasts: Mapped[datetime.timedelta | None]
    mood: Mapped[str | None] = mapped_column(Shouted)
    kept_as: Mapped[str | None] = mapped_column("odd_column_name", String(9))
    papers: Mapped[list[Paper]] = relationship(back_populates="folder")
    by_name: Mapped[dict[str, Paper]] = relationship(
        collection_class=attribute_keyed_dict("name"), viewonly=True
    )
    as_set: Mapped[set[Paper]] = relationship(viewonly=True)
    later: DynamicMapped[Paper] = relationship(viewonly=True)


class Paper(Base):
    __tablename__ = "paper"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(9))
    kind: Mapped[str] = mapped_column(String(9))
    folder_id: Mapped[int] = mapped_column(ForeignKey("folder.id"))
    folder: Mapped[Folder] = relationship(back_populates="papers")
    __mapper_args__: t.ClassVar[dict[str, t.Any]] = {
        "polymorphic_on": "kind",
        "polymorphic_identity": "plain",
    }


class Letter(Paper):
    __mapper_args__: t.ClassVar[dict[str, t.Any]] = {"polymorphic_identity": "letter"}


class PaperSchema(ma.Schema):
    name = ma.fields.String(data_key="called")
    folder = ma.fields.Nested(lambda: FolderSchema())


class FolderSchema(ma.Schema):
    papers = ma.fields.Nested(PaperSchema, many=True)
    names = ma.fields.Pluck(PaperSchema, "name", many=True, attribute="as_set", dump_only=True)
    tags = ma.fields.List(ma.fields.Integer())
    price = ma.fields.Decimal(as_string=True)
    count = ma.fields.Integer(as_string=True)
    day = ma.fields.Date(format="%d.%m.%Y")
    extra = ma.fields.Raw()
    nowhere = ma.fields.String(attribute="tenant.name")
    unknown = ma.fields.String()


class LostSchema(ma.Schema):
    papers = ma.fields.Nested("NoSuchSchemaAnywhere", many=True)


def bound_of(tmp_path: Path, channels: str) -> t.Mapping[str, BoundChannel]:
    (tmp_path / "webhooks.yaml").write_text(f"version: 1\nchannels:\n{channels}", encoding="utf-8")
    return open_catalog("webhooks.yaml", root=tmp_path)[1]


@pytest.fixture(scope="module")
def everything() -> t.Mapping[str, BoundChannel]:
    return open_catalog("everything.yaml", root=SHOP / "good")[1]


@pytest.fixture
def invoice() -> t.Any:
    import shop  # type: ignore[import-not-found]

    client = shop.Client(id=3, business_id=42, name="Ama")
    author = shop.User(id=5, name="Kofi", password_hash="never to be sent")
    lines = [shop.Line(id=8, product="nails", quantity=2), shop.Line(id=9, product="paint", quantity=1)]
    return shop.Invoice(
        id=7, number="A7", status="sent", total=Decimal("12.50"), client=client, author=author, lines=lines
    )


def test_dump_is_what_the_schema_says(everything: t.Mapping[str, BoundChannel], invoice: t.Any) -> None:
    assert everything["invoices"].dump(invoice) == {
        "id": 7,
        "number": "A7",
        "status": "sent",
        "total": "12.50",
        "lines": [{"id": 8, "product": "nails"}, {"id": 9, "product": "paint"}],
        "customer": "Ama",
    }


def test_dump_by_the_schema_of_the_event(everything: t.Mapping[str, BoundChannel], invoice: t.Any) -> None:
    bound = everything["invoices"]
    assert bound.dump(invoice, bound.channel.events["paid"]) == {"id": 7, "total": "12.50"}
    assert "number" in bound.dump(invoice, bound.channel.events["created"])


def test_dump_without_schema_is_the_columns(everything: t.Mapping[str, BoundChannel], invoice: t.Any) -> None:
    assert everything["clients"].dump(invoice.client) == {"id": 3, "business_id": 42, "name": "Ama"}


def test_plain_dump_leaves_out_bytes_and_names_attributes(tmp_path: Path) -> None:
    folders = bound_of(
        tmp_path, f"  folders: {{model: {__name__}:Folder, owner: tenant, events: [created]}}"
    )["folders"]
    row = Folder(id=1, tenant=2, content=b"x", lasts=datetime.timedelta(minutes=2), kept_as="a")
    assert folders.dump(row) == {"id": 1, "tenant": 2, "lasts": 120.0, "mood": None, "kept_as": "a"}
    assert folders.columns == {"id", "tenant", "content", "lasts", "mood", "kept_as"}


def test_channel_without_model_takes_a_dict_or_any_row(
    everything: t.Mapping[str, BoundChannel], invoice: t.Any
) -> None:
    transactions = everything["transactions"]
    assert transactions.model is None
    data = {"account": {"id": 5}}
    assert transactions.dump(data) == data
    assert transactions.dump(data) is not data
    assert transactions.dump(invoice.client)["name"] == "Ama"
    assert transactions.owner(data) == "5"
    with pytest.raises(PayloadError, match="Pass a dict, or add a schema"):
        transactions.dump(object())


def test_owner_is_text_or_nothing(everything: t.Mapping[str, BoundChannel], invoice: t.Any) -> None:
    invoices, lines = everything["invoices"], everything["lines"]
    assert invoices.owner(invoice) == "42"
    assert lines.owner(invoice.lines[0]) == "42"
    invoice.client = None
    assert invoices.owner(invoice) is None
    assert lines.owner(invoice.lines[0]) is None


def test_includes(everything: t.Mapping[str, BoundChannel], invoice: t.Any) -> None:
    includes = everything["invoices"].includes
    assert {name: include.dump(invoice) for name, include in includes.items()} == {
        # By the schema of the channel `lines`, the only one with that model.
        "positions": [{"id": 8, "product": "nails"}, {"id": 9, "product": "paint"}],
        # No schema anywhere: the columns.
        "buyer": {"id": 3, "business_id": 42, "name": "Ama"},
        "buyer_name": "Ama",
        "author": {"id": 5, "name": "Kofi"},
        "checker": None,
        "display": "No. A7",
        "owner_key": 42,
    }
    assert {name: include.relationships for name, include in includes.items() if include.relationships} == {
        "positions": ("lines",),
        "buyer": ("client",),
        "buyer_name": ("client",),
        "author": ("author",),
        "checker": ("approver",),
        "owner_key": ("client",),
    }
    assert [name for name, include in includes.items() if include.many] == ["positions"]


@pytest.mark.parametrize("collection", ["papers", "by_name", "as_set"])
def test_include_of_any_collection_is_a_list(tmp_path: Path, collection: str) -> None:
    folders = bound_of(
        tmp_path,
        f"  folders: {{model: {__name__}:Folder, owner: tenant, events: [created], includes: [{collection}]}}",
    )["folders"]
    row, paper = Folder(id=1), Paper(id=2, name="a", kind="plain", folder_id=1)
    if collection == "by_name":
        row.by_name["a"] = paper
    elif collection == "as_set":
        row.as_set.add(paper)
    else:
        row.papers.append(paper)
    assert folders.includes[collection].dump(row) == [{"id": 2, "name": "a", "kind": "plain", "folder_id": 1}]
    assert folders.includes[collection].many


def test_include_through_a_collection_is_flat(tmp_path: Path) -> None:
    channel = (
        f"  folders: {{model: {__name__}:Folder, owner: tenant, events: [created], includes: [papers.name]}}"
    )
    include = bound_of(tmp_path, channel)["folders"].includes["papers.name"]
    row = Folder(papers=[Paper(name="a"), Paper(name="b")])
    assert include.dump(row) == ["a", "b"]
    assert include.dump(Folder()) == []
    assert include.relationships == ("papers",)


def test_watch_is_what_conditions_look_at(everything: t.Mapping[str, BoundChannel]) -> None:
    assert everything["invoices"].watch == {
        "status",
        "stage",
        "urgent",
        "due_on",
        "client_id",
        "approver_id",
        "updated_at",
    }
    # The default `ignore` names a column that clients do not have.
    assert everything["clients"].watch == frozenset()


def test_what_the_schema_reads_can_be_loaded_in_bulk(everything: t.Mapping[str, BoundChannel]) -> None:
    assert set(everything["invoices"].relationships) == {"lines", "client"}
    assert everything["invoices"].read_paths == (("lines",), ("client",))
    assert everything["invoices"].needed == {"lines", "client", "author", "approver"}
    assert everything["lines"].needed == {"invoice"}


def test_touches_by_relationship_and_by_channel(
    everything: t.Mapping[str, BoundChannel], invoice: t.Any
) -> None:
    [touch] = everything["invoices"].touches
    assert (touch.channel, touch.relationship) == ("clients", "client")
    [(touched, row)] = everything["lines"].touched(invoice.lines[0], everything)
    assert (touched.channel.name, row) == ("invoices", invoice)
    invoice.client = None
    assert list(everything["invoices"].touched(invoice, everything)) == []


def test_touching_many(tmp_path: Path) -> None:
    bound = bound_of(
        tmp_path,
        f"  folders: {{model: {__name__}:Folder, owner: tenant, events: [updated], touches: [papers]}}\n"
        f"  papers: {{model: {__name__}:Paper, owner: folder.tenant, events: [updated]}}\n"
        f"  letters: {{model: {__name__}:Letter, owner: folder.tenant, events: [updated]}}\n",
    )
    paper, letter = Paper(name="a"), Letter(name="b")
    found = [
        (each.channel.name, row)
        for each, row in bound["folders"].touched(Folder(papers=[paper, letter]), bound)
    ]
    # A letter is a paper, a paper is not a letter.
    assert found == [("papers", paper), ("papers", letter), ("letters", letter)]


def test_channel_that_only_touches_wants_every_change(everything: t.Mapping[str, BoundChannel]) -> None:
    assert everything["lines"].kinds == set(Kind)
    assert everything["clients"].kinds == {Kind.CREATED, Kind.UPDATED, Kind.DELETED}
    assert everything["users"].kinds == {Kind.UPDATED}
    assert everything["transactions"].kinds == frozenset()


def test_schemas_are_created_once(everything: t.Mapping[str, BoundChannel]) -> None:
    invoices = everything["invoices"]
    assert invoices.schemas["invoices.created"] is invoices.schema
    assert invoices.schemas["invoices.paid"] is not invoices.schema
    assert invoices.includes["positions"].schema is everything["lines"].schema
    assert "clients.created" not in everything["clients"].schemas


def test_bind_alone_reports_what_only_python_knows() -> None:
    catalog = load("owner_no_attribute.yaml", root=SHOP / "bad")
    with pytest.raises(CatalogError) as caught:
        bind(catalog)
    [problem] = caught.value.problems
    assert (problem.file, problem.line) == ("owner_no_attribute.yaml", 5)


def test_models_that_sqlalchemy_cannot_configure_are_reported(tmp_path: Path) -> None:
    class Broken(DeclarativeBase):
        pass

    class Chapter(Broken):
        __tablename__ = "chapter"
        id: Mapped[int] = mapped_column(primary_key=True)
        book: Mapped[t.Any] = relationship("Boook")

    try:
        sys.modules[__name__].Chapter = Chapter  # type: ignore[attr-defined]
        with pytest.raises(CatalogError, match="import every module with models before"):
            bound_of(tmp_path, f"  chapters: {{model: {__name__}:Chapter, owner: id, events: [created]}}")
    finally:
        Broken.registry.dispose()


def history_of(cls: t.Any) -> t.Any:
    """As apps make tables of old versions: a class that no name of its module stands for."""
    table = f"{cls.__tablename__}_{len(cls.metadata.tables)}"
    body = {"__module__": __name__, "__tablename__": table, "id": mapped_column(Integer, primary_key=True)}
    return type(f"{cls.__name__}History", cls.__bases__, body)


def test_a_class_that_a_function_made_is_found_among_those_of_other_channels(tmp_path: Path) -> None:
    class Kept(DeclarativeBase):
        pass

    class Page(Kept):
        __tablename__ = "page"
        id: Mapped[int] = mapped_column(primary_key=True)

    made = history_of(Page)
    named = f"  pages: {{model: {__name__}:Page, owner: id, events: [created]}}"
    history = f"  page_history: {{model: {__name__}:PageHistory, owner: id, events: [created]}}"
    try:
        sys.modules[__name__].Page = Page  # type: ignore[attr-defined]
        assert bound_of(tmp_path, f"{named}\n{history}")["page_history"].model is made
        with pytest.raises(CatalogError, match='has no "PageHistory"'):
            bound_of(tmp_path, history)
        with pytest.warns(SAWarning, match="same class name"):
            history_of(Page)
        with pytest.raises(CatalogError, match='has no "PageHistory"'):
            bound_of(tmp_path, f"{named}\n{history}")
    finally:
        del sys.modules[__name__].Page
        Kept.registry.dispose()


def test_schemas_that_nest_each_other_end(tmp_path: Path) -> None:
    channel = f"  folders: {{model: {__name__}:Folder, schema: {__name__}:FolderSchema, owner: id, events: [created]}}"
    bound = bound_of(tmp_path, channel)
    read_paths = bound["folders"].read_paths
    assert read_paths[:2] == (("papers",), ("as_set",))
    assert ("papers", "folder", "as_set") in read_paths
    assert len(read_paths) == len(set(read_paths))
    assert max(len(trail) for trail in read_paths) == 6
    events, _ = describe(bound)
    fields = events["folders.created"]
    assert {path: fields[path] for path in fields if not path.startswith("papers")} == {
        "names[]": "string",
        "tags[]": "integer",
        "price": "decimal",
        "count": "string",
        "day": "date (%d.%m.%Y)",
        "extra": "any",
        "nowhere": "string",
        "unknown": "string",
    }
    assert fields["papers[].called"] == "string"
    assert fields["papers[].folder.tags[]"] == "integer"
    assert "object" in fields.values()


def test_nested_schema_that_does_not_exist_is_reported(tmp_path: Path) -> None:
    channel = f"  folders: {{model: {__name__}:Folder, schema: {__name__}:LostSchema, owner: id, events: [created]}}"
    with pytest.raises(CatalogError, match="a nested schema cannot be found"):
        bound_of(tmp_path, channel)


def test_two_schemas_of_one_model_do_not_choose_themselves_for_an_include(tmp_path: Path) -> None:
    bound = bound_of(
        tmp_path,
        f"  folders: {{model: {__name__}:Folder, owner: id, events: [created], includes: [papers, papers.folder]}}\n"
        f"  papers: {{model: {__name__}:Paper, schema: {__name__}:PaperSchema, owner: id, events: [created]}}\n"
        f"  sheets: {{model: {__name__}:Paper, schema: {__name__}:FolderSchema, owner: id, events: [created]}}\n",
    )
    includes = bound["folders"].includes
    assert includes["papers"].schema is None
    assert set(includes["papers"].dump(Folder(papers=[Paper(name="a")]))[0]) == {
        "id",
        "name",
        "kind",
        "folder_id",
    }
    assert includes["papers.folder"].many, "one folder for each of many papers"


def test_column_of_a_type_of_the_app_may_be_compared_with_anything(tmp_path: Path) -> None:
    channel = (
        f"  folders: {{model: {__name__}:Folder, owner: id, events: {{cheered: {{when: {{mood: 7}}}}}}}}"
    )
    assert bound_of(tmp_path, channel)["folders"].watch == {"mood"}
