"""``flask --app example_app ...``: create the tables and the two businesses, print a token, simulate business."""

from __future__ import annotations

import secrets
import time

import click
import sqlalchemy as sa
from flask import Flask, current_app
from flask.cli import with_appcontext

from .models import ApiToken, User, db
from .seed import PASSWORD, seed
from .simulation import Simulation


def init_app(app: Flask) -> None:
    for command in (seed_command, token_command, trade_command):
        app.cli.add_command(command)


@click.command("seed")
@with_appcontext
def seed_command() -> None:
    """Create the tables and two businesses. Safe to repeat."""
    seed(db)
    for user in db.session.scalars(sa.select(User).order_by(User.id)):
        click.echo(f"{user.email}  password {PASSWORD}  ({user.business.name})")


@click.command("token")
@click.argument("email")
@with_appcontext
def token_command(email: str) -> None:
    """Print a new API token for the user with this EMAIL. It is not shown again."""
    user = db.session.scalar(sa.select(User).where(User.email == email))
    if user is None:
        raise click.ClickException(f"There is no user {email}. Run `flask --app example_app seed` first.")
    token = secrets.token_urlsafe(32)
    db.session.add(ApiToken(user_id=user.id, digest=ApiToken.digest_of(token)))
    db.session.commit()
    click.echo(token)


@click.command("trade")
@click.option("--per-second", default=10.0, show_default=True, help="Steps per second.")
@click.option("--seconds", default=20.0, show_default=True, help="How long to continue.")
@click.option(
    "--seed", "seed_number", default=1, show_default=True, help="The same number gives the same steps."
)
@with_appcontext
def trade_command(per_second: float, seconds: float, seed_number: int) -> None:
    """Do business for a while, and print each step."""
    simulation = Simulation(current_app._get_current_object(), seed=seed_number)  # type: ignore[attr-defined]
    began = time.monotonic()
    for number in range(1, int(per_second * seconds) + 1):
        click.echo(str(simulation.step()))
        time.sleep(max(0.0, began + number / per_second - time.monotonic()))
