"""Processes that commit until they are killed: a seed for each line of standard input, a process for each seed.

`python -m tests.capture.committing URL FOLDER` makes an app once and forks, because a start takes seconds.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

from flask import Flask

from tests.host import Invoice, Line, db, make_host


def commit_for_ever(app: Flask, seed: int) -> None:
    """Commit, flush, roll back and use savepoints, at random; every invoice has a number of its own.

    Says which process it is when something has been committed: from then on it may be killed.
    """
    chance = random.Random(seed)
    is_told = False
    with app.app_context():
        db.engine.dispose(close=False)  # connections are the parent's
        for step in range(1_000_000):
            for part in range(chance.randint(1, 4)):
                db.session.add(Invoice(owner="1", number=f"{seed}-{step}-{part}", lines=[Line()]))
                if chance.random() < 0.3:
                    db.session.flush()
            if chance.random() < 0.3:
                nested = db.session.begin_nested()
                db.session.add(Invoice(owner="1", number=f"{seed}-{step}-nested"))
                nested.commit() if chance.random() < 0.5 else nested.rollback()
            if chance.random() < 0.8:
                db.session.commit()
                if not is_told:
                    tell(str(os.getpid()))
                    is_told = True
            else:
                db.session.rollback()


def tell(word: str) -> None:
    """Write a line."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def main(url: str, folder: str) -> None:
    """Fork for each seed; say when that process is dead."""
    app = make_host(url, Path(folder))
    for line in sys.stdin:
        child = os.fork()
        if not child:
            commit_for_ever(app, int(line))
        os.waitpid(child, 0)
        tell("dead")


if __name__ == "__main__":
    main(*sys.argv[1:])
