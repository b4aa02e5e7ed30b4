"""A channel's own rules for bulk statements and errors override the settings."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from flask_webhooks import Webhooks
from flask_webhooks.errors import BulkStatementError, PayloadError
from flask_webhooks.testing import recorded as recording
from tests.capture.conftest import NOWHERE, capturing, events
from tests.capture.stock import CATALOG, Ware, db
from tests.stage import recorded, subscribe

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
ROWS = [{"number": 1}, {"number": 2}]


def saying(words: str) -> str:
    return CATALOG.replace("owner: owner", f"owner: owner, {words}")


@pytest.mark.parametrize(
    ("mode", "setting"), [("ignore", "capture"), ("warn", "capture"), ("capture", "ignore")]
)
def test_bulk(database_url: str, tmp_path: Path, mode: str, setting: str) -> None:
    with capturing(db, saying(f"bulk: {mode}"), database_url, tmp_path, WEBHOOKS_BULK=setting) as state:
        subscribe(state, NOWHERE, "wares.*")
        db.session.execute(sa.insert(Ware), ROWS)
        db.session.commit()

        assert events(state) == ["wares.created"] * (2 if mode == "capture" else 0)


def test_bulk_is_refused_with_and_without_subscriptions(database_url: str, tmp_path: Path) -> None:
    with (
        capturing(db, saying("bulk: raise"), database_url, tmp_path),
        pytest.raises(BulkStatementError, match="`bulk` in the channel"),
    ):
        db.session.execute(sa.insert(Ware), ROWS)


def test_bulk_of_a_base_and_its_subclass(database_url: str, tmp_path: Path) -> None:
    """Each of the channels that see a row says it for its own events."""
    catalog = saying("bulk: ignore") + CATALOG.partition("channels:\n")[2].replace("wares", "goods")
    with capturing(db, catalog, database_url, tmp_path) as state:
        subscribe(state, NOWHERE, "*")
        db.session.execute(sa.insert(Ware), ROWS)
        db.session.commit()

        assert events(state) == ["goods.created"] * 2


@pytest.mark.parametrize("setting", ["record", "raise", "log"])
@pytest.mark.parametrize("said", ["record", "raise", "log"])
def test_on_error(database_url: str, tmp_path: Path, said: str, setting: str) -> None:
    catalog = saying(f'on_error: {said}, schema: "tests.capture.stock:FailingSchema"')
    with capturing(db, catalog, database_url, tmp_path, WEBHOOKS_ON_ERROR=setting) as state:
        subscribe(state, NOWHERE, "wares.*")
        db.session.add(Ware(number=1))
        if said == "raise":
            with pytest.raises(PayloadError):
                db.session.commit()
            db.session.rollback()
        else:
            db.session.commit()

        assert [message.data for message in recorded(state)] == (["null"] if said == "record" else [])


def test_on_error_does_not_hide_errors_from_tests(database_url: str, tmp_path: Path) -> None:
    catalog = saying('on_error: log, schema: "tests.capture.stock:FailingSchema"')
    with capturing(db, catalog, database_url, tmp_path) as state, recording(Webhooks(), state.app):
        db.session.add(Ware(number=1))
        with pytest.raises(PayloadError):
            db.session.commit()
