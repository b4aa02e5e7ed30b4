"""Real processes that start fast: forked from a server that has imported the packages already, but no app.

A new Python process needs a second to import Flask, SQLAlchemy and redis, and a test run starts a hundred.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import signal
import sys
import typing as t
import warnings
from pathlib import Path

if t.TYPE_CHECKING:
    from multiprocessing.context import ForkServerProcess

__all__ = ["start"]

PRELOAD = [
    "flask.cli",
    "flask_webhooks.cli",
    "rq.worker",
    "sqlalchemy.dialects.postgresql.psycopg",
    "tests.served",
]

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(PRELOAD)


def start(
    words: t.Sequence[str],
    env: t.Mapping[str, str],
    folder: Path,
    out: Path,
    err: Path,
    *,
    is_cold: bool = False,
) -> ForkServerProcess:
    """Start `python -m words…` in a folder and a session of its own, with what it says in files.

    :param env: in addition to this process's environment.
    :param is_cold: nothing is imported before, as outside of tests.
    """
    values = (list(words), {**os.environ, **env}, str(folder), str(out), str(err), is_cold)
    process = _context.Process(target=_become, args=values)
    process.start()
    return process


def _become(words: list[str], env: dict[str, str], folder: str, out: str, err: str, is_cold: bool) -> None:
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    for path, number in ((out, 1), (err, 2)):
        with open(path, "ab") as file:
            os.dup2(file.fileno(), number)
    # A shell without job control has it ignored in what it puts into the background, and a test run may be that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if is_cold:
        os.execve(sys.executable, [sys.executable, "-m", *words], env)
    for stream in (sys.stdout, sys.stderr):
        t.cast("t.Any", stream).reconfigure(line_buffering=True)
    if env.get("PYTHONWARNINGS"):
        warnings.simplefilter(t.cast("t.Any", env["PYTHONWARNINGS"]))
    sys.path[:0] = [folder, *env.get("PYTHONPATH", "").split(os.pathsep)]
    sys.argv = words
    try:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # a forked process leaves without
