"""`flask webhooks …`: each command is a few lines that call one workflow and print the result.

===============  ==============================================
`catalog`        `init`, `check`, `catalog`; `rows` of `check`
`scaffold`       the catalogue that `init` writes
`worker`         `worker`, `deliver`, `status`, `purge`
`dev`            `dev`
`subscriptions`  `subscribe`, `subscriptions`, `send-test`
`certificates`   `client-certificates`
`encryption`     `rotate-encryption`
`replay`         `replay`, `backfill`
`repair`         `repair`
`tail`           `tail`
`context`        the app, and a database that does not respond
`output`         text that is safe to print
`durations`      `90s`, `1h30m`
===============  ==============================================

The exit code is 0 only if everything succeeded. `--json` exists where the output is data.
"""

from __future__ import annotations

import contextlib
import typing as t

import click
import sqlalchemy as sa
from flask.cli import AppGroup, ScriptInfo

from ..errors import WebhooksError
from ..visible import visible
from .catalog import catalog, check, init
from .certificates import client_certificates
from .context import database_fault, driver_fault
from .dev import dev
from .encryption import rotate_encryption
from .repair import repair
from .replay import backfill, replay
from .subscriptions import send_test, subscribe, subscriptions
from .tail import tail
from .worker import deliver, purge, status, worker

__all__ = ["webhooks_cli"]


class Group(AppGroup):
    """Prints the text of an error of ours or of the database, without a traceback."""

    def invoke(self, ctx: click.Context) -> t.Any:
        try:
            return super().invoke(ctx)
        except WebhooksError as error:
            raise click.ClickException(visible(str(error))) from error
        except sa.exc.SQLAlchemyError as error:
            fault = database_fault(ctx.ensure_object(ScriptInfo).load_app(), error)
            if fault is None:
                raise
            raise click.ClickException(visible(fault)) from error
        except (ModuleNotFoundError, click.UsageError) as error:
            fault = driver_fault(error)
            if fault is None:
                raise  # the host's own, or about what was typed
            raise click.ClickException(fault) from error
        except click.ClickException as error:
            raise click.ClickException(visible(error.message)) from error


class _Top(Group):
    """Leaves room for commands of the host's: those of a blueprint called `webhooks` are in a group of that name."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, cmd_name) or self._theirs(ctx).get_command(ctx, cmd_name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self._theirs(ctx).list_commands(ctx)})

    def _theirs(self, ctx: click.Context) -> click.Group:
        with contextlib.suppress(Exception):  # help, and that there is no such command, need no app
            found = ctx.ensure_object(ScriptInfo).load_app().cli.commands.get(str(self.name))
            if isinstance(found, click.Group):
                return found
        return click.Group()


webhooks_cli = _Top("webhooks", help="Outbound webhooks: workers, catalogue, deliveries.")
for command in (
    *(worker, deliver, status, purge, rotate_encryption, init, check, catalog),
    *(subscribe, subscriptions, client_certificates, send_test, replay, backfill, repair, tail, dev),
):
    webhooks_cli.add_command(command)
