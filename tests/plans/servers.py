"""PostgreSQL servers for plans: that of the wheel, and Debian's, which most people run."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import typing as t
from pathlib import Path

import psycopg

from tests.stage import wait_until

__all__ = ["debian_postgres", "debian_programs"]

OPTIONS = ("fsync=off", "full_page_writes=off", "synchronous_commit=off", "autovacuum=off", "jit=off")


def debian_programs() -> Path | None:
    """Return the folder of the programs of Debian's PostgreSQL; None where it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


@contextlib.contextmanager
def debian_postgres() -> t.Iterator[str]:
    """The URL of a server of Debian's programs, without a database name. It listens on a socket in its own folder."""
    programs = debian_programs()
    assert programs is not None
    folder = Path(tempfile.mkdtemp(prefix="webhooks-pg15-"))
    # PostgreSQL refuses to run as root; Debian's package makes a user for it.
    user = "postgres" if os.geteuid() == 0 else None
    if user is not None:
        shutil.chown(folder, user)
    data = folder / "data"
    _run([programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8"], user)
    options = [word for each in OPTIONS for word in ("-c", each)]
    words = [programs / "postgres", "-D", data, "-k", folder, "-c", "listen_addresses=", *options]
    quiet: dict[str, t.Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    server = subprocess.Popen([str(word) for word in words], user=user, **quiet)
    try:
        wait_until(lambda: _answers(folder), 30, about="PostgreSQL")
        yield f"postgresql+psycopg://postgres@/?host={folder}"
    finally:
        server.terminate()
        server.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _run(words: t.Sequence[object], user: str | None) -> None:
    subprocess.run([str(word) for word in words], check=True, user=user, stdout=subprocess.DEVNULL, cwd="/")


def _answers(folder: Path) -> bool:
    try:
        psycopg.connect(host=str(folder), user="postgres", dbname="postgres").close()
    except psycopg.OperationalError:
        return False
    return True
