"""Creates two demonstration businesses, always the same, with at least one record of every kind."""

from __future__ import annotations

import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy

from .. import models as m
from ..database import begin_to_write
from .businesses import FOUNDINGS, PASSWORD, demo_token
from .records import Founder

__all__ = ["FOUNDINGS", "PASSWORD", "demo_token", "seed"]


def seed(db: SQLAlchemy) -> None:
    """Create the tables and the businesses that are missing, and commit. Safe to repeat.

    Each person can sign in with `PASSWORD`, and has an API token: see `demo_token`.
    """
    begin_to_write()
    db.metadata.create_all(db.session.connection())  # in the same transaction as the rows
    for founding in FOUNDINGS:
        if db.session.scalar(sa.select(m.Business.id).where(m.Business.name == founding.name)) is None:
            Founder(db, founding).found()
    db.session.commit()
