"""Two businesses to begin with, the same every time, with at least one record of every kind."""

from __future__ import annotations

import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy

from . import models as m
from .database import begin_to_write
from .firms import FOUNDINGS
from .founding import Founder


def seed(db: SQLAlchemy) -> None:
    """Create the tables and the businesses that are missing, and commit. Safe to repeat.

    Each person can sign in with `demo.PASSWORD`, and has an API token: see `demo.demo_token`.
    """
    begin_to_write()
    db.metadata.create_all(db.session.connection())  # in the same transaction as the rows
    for founding in FOUNDINGS:
        if db.session.scalar(sa.select(m.Business.id).where(m.Business.name == founding.name)) is None:
            Founder(db, founding).found()
    db.session.commit()
