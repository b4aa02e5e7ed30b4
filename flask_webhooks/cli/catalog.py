"""Commands about the catalogue: write a first one, check it, print it.

`init` and `check` run when the app's factory would stop at the extension: see `flask_webhooks.setup_errors`.
"""

from __future__ import annotations

import json
import sys
import typing as t
from datetime import UTC, datetime
from pathlib import Path

import click
from flask import Flask, current_app
from flask.cli import ScriptInfo, with_appcontext

from .. import checks as checking
from .. import payload, reference
from ..absolute import place_of_app
from ..checks import Check, Finding, Level
from ..queue import Bell, Embedded
from ..setup_errors import Setback, forgiving
from ..state import EXTENSION, current_webhooks, state_of
from . import scaffold
from .output import say
from .rows import look_at_rows, tell_of_rows, values_of_rows

__all__ = ["catalog", "check", "init"]


def _load(context: click.Context) -> tuple[Flask, Setback | None]:
    """Return the app, and why its webhooks could not be initialised."""
    if current_app:
        return current_app._get_current_object(), None  # type: ignore[attr-defined]
    with forgiving() as setbacks:
        try:
            app = context.ensure_object(ScriptInfo).load_app()
        except Exception:
            # What the factory does after init_app may need what init_app could not make.
            if not setbacks:
                raise
            app = setbacks[-1].app
    context.with_resource(app.app_context())
    return app, next((setback for setback in setbacks if setback.app is app), None)


# ---- init ------------------------------------------------------------------------------------------------


@click.command()
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write to another file.")
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
@click.option(
    "--tenant", metavar="MODEL", help="The model that owns the data: each row leads to one of its rows."
)
@click.option("--owner-value", metavar="KEY", help="The single owner of all data, in an app with one tenant.")
@click.pass_context
def init(
    context: click.Context, output: Path | None, force: bool, tenant: str | None, owner_value: str | None
) -> None:
    """Write a first catalogue from the app's own models.

    Every channel has the columns of its model, and the path to the owner along relationships and foreign keys. In a
    terminal you are asked who owns the data; elsewhere it is guessed. The file loads as it is: read it, and remove what
    your customers should not receive.
    """
    if tenant is not None and owner_value is not None:
        raise click.UsageError("--tenant and --owner-value exclude each other.")
    app, _ = _load(context)
    path = output or _target(app)
    if path.exists() and not force:
        raise click.ClickException(f"{path} exists already. Use --force to overwrite it, or --output FILE.")
    if "sqlalchemy" not in app.extensions:
        raise click.ClickException("The app has no Flask-SQLAlchemy. Call db.init_app(app) in its factory.")
    try:
        draft = scaffold.draft(
            app.extensions["sqlalchemy"],
            title=app.name,
            tenant=tenant,
            owner_value=owner_value,
            ask=ask_whose if sys.stdin.isatty() else None,
        )
    except scaffold.NoTenant as error:
        raise click.ClickException(str(error)) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(draft.text, encoding="utf-8")
    say(f"Wrote {path}: {draft.summary}")
    if draft.whose:
        say(draft.whose)
    say("Next: read it, then run `flask webhooks check`.")


def ask_whose(found: t.Sequence[scaffold.Tenancy], count: int) -> scaffold.Tenancy | str | None:
    """Ask on the terminal whose data an app has."""
    shown = found[:5]
    say("Who owns the data? Only subscriptions of the owner receive events about a row.")
    for number, each in enumerate(shown, 1):
        say(
            f"  {number}  {each.name}: {len(each.paths)} of {count} models lead there, most by {each.default}"
        )
    one, none = len(shown) + 1, len(shown) + 2
    say(f"  {one}  a single owner for all data (an app with one tenant)")
    say(f"  {none}  none of these")
    answer: int = click.prompt("Number", type=click.IntRange(1, none), default=1)
    if answer == one:
        return str(click.prompt("Its key, as returned by your principal_loader", type=str))
    return shown[answer - 1] if answer < one else None


def _target(app: Flask) -> Path:
    sources = checking.settings_of(app.config).catalog
    if ":" in sources[0] and not Path(sources[0]).is_absolute():
        raise click.ClickException(
            f"WEBHOOKS_CATALOG is {sources[0]!r}, which is not a file. Use --output to say where to write."
        )
    return Path(app.root_path) / sources[0]


# ---- check -----------------------------------------------------------------------------------------------


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option(
    "--update", is_flag=True, help="Write the lock file again, and thereby accept what has changed."
)
@click.option("--lock", type=click.Path(path_type=Path, dir_okay=False), help="Use another lock file.")
@click.option("--offline", is_flag=True, help="Skip database and Redis.")
@click.option("--production", is_flag=True, help="Also check what has to be done before going live.")
@click.option(
    "--rows", is_flag=True, help="Also serialise the newest row of each channel; nothing is written."
)
@click.option("--channel", metavar="NAME", help="With --rows: only this channel.")
@click.pass_context
def check(
    context: click.Context,
    as_json: bool,
    update: bool,
    lock: Path | None,
    offline: bool,
    rows: bool,
    channel: str | None,
    production: bool,
) -> None:
    """Check configuration, catalogue, models, schema drift, database and Redis.

    With --rows, also serialise existing rows: report which fields fail, how long a commit would wait, and which
    relationships are loaded row by row.

    Exit code 1 if there is an error; warnings do not count.
    """
    if offline and rows:
        raise click.UsageError("--rows needs the database: leave out --offline.")
    if channel is not None and not rows:
        raise click.UsageError("--channel needs --rows: add --rows, or leave out --channel.")
    app, setback = _load(context)
    checks = list(_checks(app, setback, lock, update=update, offline=offline))
    if production and EXTENSION in app.extensions:
        checks.append(checking.check_production(state_of(app)))
    if not as_json:
        _tell(checks)
    looked = None
    if rows and EXTENSION in app.extensions:
        looked = look_at_rows(state_of(app), channel, is_hidden=as_json)
    if as_json:
        found = _values(checks)
        if looked is not None:
            found["ok"] = found["ok"] and all(each.ok for each in looked)
            found["rows"] = values_of_rows(looked)
        say(json.dumps(found, indent=2))
    elif looked is not None:
        tell_of_rows(looked)
    if not all(each.ok for each in (*checks, *(looked or ()))):
        raise SystemExit(1)


def _checks(
    app: Flask, setback: Setback | None, lock: Path | None, *, update: bool, offline: bool
) -> t.Iterator[Check]:
    configuration = checking.check_configuration(app.config)
    yield configuration
    settings, root = checking.settings_of(app.config), Path(app.root_path)
    catalogue, opened = checking.check_catalog(settings.catalog, root, _formats(app, setback))
    yield catalogue
    yield from _start(app, setback, is_explained=not (configuration.ok and catalogue.ok))
    if opened is not None:
        urls = checking.check_urls(opened, place_of_app(app.config, settings.base_url))
        if urls is not None:
            yield urls
        yield checking.check_lock(opened, lock or checking.lock_path(settings.catalog, root), update=update)
    if offline:
        return
    if "sqlalchemy" in app.extensions:
        engine = app.extensions["sqlalchemy"].engine
        yield checking.check_database(engine)
        yield checking.check_environments(engine, settings)
    if EXTENSION in app.extensions:
        certificates = checking.check_certificates(state_of(app), datetime.now(UTC))
        if certificates is not None:
            yield certificates
    embedded = Embedded(Path(app.instance_path) / "webhooks")
    bell = Bell(settings.redis_url, embedded, settings.queue, app.import_name)
    yield checking.check_redis(bell, is_embedded=settings.redis_url is None)


def _formats(app: Flask, setback: Setback | None) -> t.Collection[str]:
    if setback is not None:
        return setback.formats
    return current_webhooks.formats if EXTENSION in app.extensions else payload.FORMATS


def _start(app: Flask, setback: Setback | None, *, is_explained: bool) -> t.Iterator[Check]:
    """Whether the app uses the extension. What was reported already is not repeated."""
    if EXTENSION in app.extensions:
        yield Check("extension", f"initialised on {app.name}")
    elif setback is None:
        text = "The app does not use Flask-Webhooks. Call webhooks.init_app(app, db) in its factory."
        yield Check("extension", "not initialised", (Finding(Level.ERROR, text),))
    elif not is_explained:
        yield Check("extension", "not initialised", (Finding(Level.ERROR, str(setback.error)),))


def _values(checks: t.Sequence[Check]) -> dict[str, t.Any]:
    names = ("level", "message", "file", "line", "path")
    return {
        "ok": all(each.ok for each in checks),
        "checks": [
            {
                "name": each.name,
                "ok": each.ok,
                "summary": each.summary,
                "findings": [{name: getattr(item, name) for name in names} for item in each.findings],
            }
            for each in checks
        ],
    }


def _tell(checks: t.Sequence[Check]) -> None:
    for each in checks:
        sign = ("ok  ", "green") if each.ok else ("FAIL", "red")
        say(sign, f"  {each.name:14} {each.summary}")
        for finding in each.findings:
            say(f"      {finding.level.value}: {finding}")


# ---- catalog ---------------------------------------------------------------------------------------------


@click.command()
@click.option("--json", "form", flag_value="json", help="Print them as JSON.")
@click.option(
    "--markdown", "form", flag_value="markdown", help="Print a page for your customers' documentation."
)
@click.option(
    "--openapi", "form", flag_value="openapi", help="Print OpenAPI 3.1 with a `webhooks` section, as JSON."
)
@with_appcontext
def catalog(form: str | None) -> None:
    """Print channels and events as a table."""
    state: t.Any = current_webhooks
    if form == "markdown":
        say(reference.page(state), newline=False)
    elif form is None:
        say(reference.table(state))
    else:
        found = reference.document(state) if form == "openapi" else reference.listing(state)
        say(json.dumps(found, indent=2, ensure_ascii=False))
