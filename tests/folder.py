"""Somebody's project folder, in which commands run as real processes: the way a newcomer does."""

from __future__ import annotations

import os
import subprocess
import sys
import typing as t
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class Result(t.NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


class Folder:
    """A project folder of somebody's, with `flask` run inside it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, name: str, text: str) -> Path:
        """Write a file."""
        path = self.path / name
        path.write_text(text, encoding="utf-8")
        return path

    def flask(self, *words: str, app: str = "app", **environment: str) -> Result:
        """Run `flask --app <app> <words>` here."""
        done = subprocess.run(
            [sys.executable, "-m", "flask", "--app", app, *words],
            cwd=self.path,
            env={**os.environ, "PYTHONPATH": f"{ROOT}", "PYTHONWARNINGS": "ignore", **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def webhooks(self, *words: str, **options: str) -> Result:
        """Run `flask webhooks <words>` here."""
        return self.flask("webhooks", *words, **options)
