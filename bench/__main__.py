"""All the numbers, one bench after the other: `make bench`. Each runs alone as well: `python -m bench.drain --help`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PARTS = {"receiver", "stage", "scene"}
"""Modules here that are no bench of their own."""


def main() -> None:
    """Run every bench with its defaults (or with `--json`); exit 1 if one could not run."""
    here = Path(__file__).parent
    names = sorted(path.stem for path in here.glob("*.py") if path.stem[0] != "_" and path.stem not in PARTS)
    failed = []
    for name in names:
        print(f"\n== {name} ==", file=sys.stderr, flush=True)
        if subprocess.run([sys.executable, "-m", f"bench.{name}", *sys.argv[1:]], check=False).returncode:
            failed.append(name)
    if failed:
        raise SystemExit(f"Failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
