"""Two businesses, the same every time; and trade that tells the truth about what it committed."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Flask

from example_app.channels import RESOURCES
from example_app.models import User, db
from example_app.seed import seed
from example_app.simulation import Simulation, Step
from example_app.simulation.steps import STEPS

from .conftest import close, make_app

COUNT = 150


def contents() -> dict[str, list[str]]:
    """Return the tags in every table that has them."""
    tagged = [mapper.class_ for mapper in db.Model.registry.mappers if hasattr(mapper.class_, "tag")]
    return {
        model.__tablename__: list(db.session.scalars(sa.select(model.tag).order_by(model.id)))
        for model in tagged
        if issubclass(model, db.Model) and model.__module__.startswith("example_app")
    }


def counts() -> dict[str, int]:
    return {
        name: db.session.scalar(sa.select(sa.func.count()).select_from(resource.model)) or 0
        for name, resource in RESOURCES.items()
    }


def test_seeding_again_adds_nothing(app: Flask) -> None:
    with app.app_context():
        before = contents()

        seed(db)

        assert contents() == before
        assert all(before[name] for name in RESOURCES)


def test_seeding_anew_makes_the_same(app: Flask, tmp_path: Path) -> None:
    with app.app_context():
        first = contents()
    other = make_app(tmp_path / "other.sqlite")

    with other.app_context():
        seed(db)

        assert contents() == first
    close(other)


def test_the_commands_seed_and_give_a_token(app: Flask) -> None:
    runner = app.test_cli_runner()

    seeded = runner.invoke(args=["seed"])
    token = runner.invoke(args=["token", "bob@globex.example"]).output.strip()

    assert "ada@acme.example" in seeded.output
    client = app.test_client()
    answer = client.get("/api/business", headers={"Authorization": f"Bearer {token}"})
    assert [record["name"] for record in answer.get_json()["items"]] == ["Globex"]


def test_the_trade_command_prints_its_steps(app: Flask) -> None:
    result = app.test_cli_runner().invoke(args=["trade", "--per-second", "1000", "--seconds", "0.01"])

    assert result.exit_code == 0, result.output
    assert len(result.output.splitlines()) == 10


def test_every_step_says_exactly_what_it_committed(app: Flask) -> None:
    with app.app_context():
        before = counts()

    steps = list(islice(Simulation(app, seed=3), COUNT))

    with app.app_context():
        after = counts()
    told = dict(before)
    for change in (change for step in steps for change in step.changes):
        name, kind = change.event.split(".")
        told[name] += {"created": 1, "updated": 0, "deleted": -1}[kind]
    assert told == after != before


def test_all_moves_are_made_and_some_are_rolled_back(app: Flask) -> None:
    steps = list(islice(Simulation(app, seed=3), COUNT))

    assert {step.action for step in steps} == {move.__name__ for move in STEPS}
    rolled_back = {step.action for step in steps if not step.is_committed}
    assert rolled_back == {"abandon_sale"}


def test_the_same_seed_does_the_same(app: Flask, tmp_path: Path) -> None:
    other = make_app(tmp_path / "other.sqlite")
    with other.app_context():
        seed(db)

    def trade(with_app: Flask) -> list[Step]:
        return list(islice(Simulation(with_app, seed=5), 30))

    assert trade(app) == trade(other)
    close(other)


def test_one_business_can_trade_alone(app: Flask) -> None:
    steps = islice(Simulation(app, business="Globex"), 20)

    assert {step.business_id for step in steps} == {2}


def test_nothing_trades_before_the_seed(tmp_path: Path) -> None:
    empty = make_app(tmp_path / "empty.sqlite")
    with empty.app_context():
        db.create_all()

    with pytest.raises(LookupError, match="seed"):
        Simulation(empty)
    close(empty)


def test_passwords_are_hashed(app: Flask) -> None:
    with app.app_context():
        hashes = db.session.scalars(sa.select(User.password_hash)).all()

    assert all(kept.startswith("scrypt:") for kept in hashes)
