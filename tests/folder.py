"""A project folder in which commands run as real processes, as for a new user."""

from __future__ import annotations

import typing as t
from pathlib import Path

from tests import forked

ROOT = Path(__file__).resolve().parent.parent


class Result(t.NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


class Folder:
    """A project folder, with `flask` run inside it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, name: str, text: str) -> Path:
        """Write a file."""
        path = self.path / name
        path.write_text(text, encoding="utf-8")
        return path

    def flask(self, *words: str, app: str = "app", is_cold: bool = False, **environment: str) -> Result:
        """Run `flask --app <app> <words>` here."""
        out, err = (self.path.parent / f"{self.path.name}.{stream}" for stream in ("out", "err"))
        for path in (out, err):
            path.write_text("")
        env = {"PYTHONPATH": f"{ROOT}", "PYTHONWARNINGS": "ignore", **environment}
        process = forked.start(["flask", "--app", app, *words], env, self.path, out, err, is_cold=is_cold)
        process.join(120)
        assert process.exitcode is not None, err.read_text()
        return Result(process.exitcode, out.read_text(), err.read_text())

    def webhooks(self, *words: str, **options: t.Any) -> Result:
        """Run `flask webhooks <words>` here."""
        return self.flask("webhooks", *words, **options)
