"""All the numbers, one bench after the other: `make bench`. Each runs alone as well: `python -m bench.drain --help`."""

from __future__ import annotations

import subprocess
import sys
import typing as t
from pathlib import Path

PARTS = {"hosts", "receiver", "stage", "scene"}
"""Modules that are not a bench, or that need arguments."""
RUNS = {
    "drain": (
        "",
        "--delay 100 --subscriptions 100",
        "--workers 2 --subscriptions 100",
        "--workers 2 --delay 100 --subscriptions 100",
    ),
    "backlog": ("--plans",),
}
"""Further runs of a bench, by their arguments."""


def commands(given: t.Sequence[str]) -> t.Iterator[list[str]]:
    """Return the words of every run: a bench's name, its own options, and those given for all."""
    here = Path(__file__).parent
    names = sorted(path.stem for path in here.glob("*.py") if path.stem[0] != "_" and path.stem not in PARTS)
    for name in names:
        for options in RUNS.get(name, ("",)):
            if "--json" in given:
                options = options.replace("--plans", "")  # they are text
            yield [name, *options.split(), *given]


def main() -> None:
    """Run every bench (or each with `--json`, `--database`); exit 1 if one could not run."""
    failed = []
    for name, *options in commands(sys.argv[1:]):
        shown = " ".join([name, *options])
        print(f"\n== {shown} ==", file=sys.stderr, flush=True)
        if subprocess.run([sys.executable, "-m", f"bench.{name}", *options], check=False).returncode:
            failed.append(shown)
    if failed:
        raise SystemExit(f"Failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
