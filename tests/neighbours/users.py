"""Models and schemas that only this app has."""

from __future__ import annotations

from flask_security.models import fsqla_v3 as fsqla

from tests.host import db

fsqla.FsModels.set_db_info(db)


class Role(db.Model, fsqla.FsRoleMixin):  # type: ignore[misc, name-defined]
    """Of Flask-Security."""


class User(db.Model, fsqla.FsUserMixin):  # type: ignore[misc, name-defined]
    """Of Flask-Security."""
