"""Everything in one terminal while developing: embedded Valkey, worker, web server."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import typing as t

import click
from flask.cli import ScriptInfo, with_appcontext

from .. import checks, jobs
from ..state import DEVELOPING
from .context import open_state, refusals
from .output import say

__all__ = ["dev"]

PATIENCE = 25.0
"""Seconds that a child has to end before it is killed: longer than one attempt."""


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=5000, show_default=True)
@click.option(
    "--debug/--no-debug", default=True, show_default=True, help="Reloader and debugger of the web server."
)
@click.pass_context
@with_appcontext
def dev(context: click.Context, host: str, port: int, debug: bool) -> None:
    """Run an embedded Valkey, a worker and the web server in this terminal; Ctrl-C stops all.

    The web server reloads itself when code changes; the worker does not. For development only: plain http to this
    machine is allowed as a destination.
    """
    state, info = open_state(), context.ensure_object(ScriptInfo)
    app = ["--app", info.app_import_path] if info.app_import_path else []
    flask = [sys.executable, "-m", "flask", *app]
    with refusals():
        checks.refuse_missing_tables(state.engine)
        if state.settings.redis_url is None:
            state.embedded.start()
    web = [*flask, "run", "--host", host, "--port", str(port), "--debug" if debug else "--no-debug"]
    try:
        is_well = _run({"worker": [*flask, "webhooks", "worker", "--verbose"], "web server": web})
    finally:
        if state.settings.redis_url is None:
            state.embedded.stop_if_last()
    if not is_well:
        raise SystemExit(1)
    say("All stopped.")


def _run(commands: t.Mapping[str, t.Sequence[str]]) -> bool:
    """Run commands until Ctrl-C, SIGTERM or the end of one; return whether the user stopped them."""
    children: dict[str, subprocess.Popen[bytes]] = {}
    environ = {**os.environ, DEVELOPING: "1"}
    try:
        with contextlib.suppress(KeyboardInterrupt), jobs.stopping() as stop:
            for name, words in commands.items():
                # In a session of its own: Ctrl-C reaches only us, and a signal to its group also the reloader's child.
                children[name] = subprocess.Popen(words, env=environ, start_new_session=True)  # noqa: S603
            while not stop.wait(0.2):
                for name, child in children.items():
                    if child.poll() is not None:
                        say(f"The {name} ended with exit code {child.returncode}.", err=True)
                        return False
        return True
    finally:
        _end(list(children.values()))


def _end(children: t.Sequence[subprocess.Popen[bytes]]) -> None:
    for child in children:
        _signal(child, signal.SIGTERM)
    for child in children:
        with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            child.wait(PATIENCE)
        _signal(child, signal.SIGKILL)
        child.wait()


def _signal(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)
