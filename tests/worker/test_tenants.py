"""A hostile customer, or failing code of the host, does not affect the deliveries of others."""

from __future__ import annotations

import typing as t
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from cryptography.fernet import Fernet
from flask import Flask, current_app
from sqlalchemy.orm import Session

from flask_webhooks import signals, subscriptions
from flask_webhooks.errors import SubscriptionError
from flask_webhooks.models import Secret, Subscription
from flask_webhooks.state import AppState, state_of
from flask_webhooks.subscriptions import SubscriptionInput
from tests.host import db
from tests.receivers import Receiver, ok
from tests.stage import attempts, deliveries, fill, lane_of, subscribe
from tests.worker.answers import run

pytestmark = pytest.mark.long


class TestRates:
    @pytest.mark.parametrize("rate", [1e-300, 1e-12])
    def test_a_tiny_rate_stops_no_other_delivery(self, state: AppState, rate: float) -> None:
        with Receiver(ok()) as slow, Receiver(ok()) as good:
            fill(state, [subscribe(state, slow.url(), rate_limit=rate)], 2)
            fill(state, [subscribe(state, good.url())], 50)
            assert run(state).delivered == 51
            run(state)

            assert len(good.requests) == 50
            assert len(slow.requests) == 1

    def test_and_is_refused(self, state: AppState) -> None:
        subscription = subscribe(state, "http://127.0.0.1:9/")
        with Session(state.engine) as session, pytest.raises(SubscriptionError, match=r"from 0\.001 to 1000"):
            subscriptions.change(
                state, session, subscription.id, SubscriptionInput(rate_limit=1e-9), owner="1"
            )

    def test_one_that_is_lifted_has_put_off_nothing(self, state: AppState) -> None:
        with Receiver(ok()) as receiver, Session(state.engine) as session:
            subscription = subscribe(state, receiver.url(), rate_limit=0.001)
            fill(state, [subscription], 3)
            run(state)
            assert len(receiver.requests) == 1
            assert lane_of(state, subscription).sendable_at is not None
            subscriptions.change(
                state, session, subscription.id, SubscriptionInput(rate_limit=None), owner="1"
            )
            session.commit()
            run(state)

            assert len(receiver.requests) == 3


class TestTheHostsOwnCode:
    def test_a_format_has_its_app(self, make_app: t.Callable[..., Flask]) -> None:
        app = make_app(APP_NAME="acme")
        state = state_of(app)
        state.formats["acme"] = lambda message, _: {
            "app": current_app.config["APP_NAME"],
            "event": message.event,
        }
        with app.app_context(), Receiver(ok()) as receiver:
            fill(state, [subscribe(state, receiver.url())], 1, format="acme")
            run(state)

            assert [attempt.status for attempt in attempts(state)] == [200]
            assert b'"acme"' in receiver.requests[0].body

    def test_what_a_signal_s_receiver_reads_holds_no_transaction(
        self, make_app: t.Callable[..., Flask]
    ) -> None:
        app = make_app()
        state = state_of(app)
        seen: list[str | None] = []

        def look(_: t.Any, subscription_id: str, **__: t.Any) -> None:
            seen.append(db.session.get_one(Subscription, subscription_id).description)

        with (
            app.app_context(),
            Receiver(ok()) as receiver,
            signals.delivery_delivered.connected_to(look),
        ):
            subscription = subscribe(state, receiver.url(), description="old")
            for description in ("old", "new"):
                with state.engine.begin() as connection:
                    connection.execute(sa.update(Subscription).values(description=description))
                fill(state, [subscription], 1)
                run(state)

        assert seen == ["old", "new"]


class TestSecretsThatNoKeyOpens:
    def shut(self, state: AppState, which: sa.ColumnElement[bool]) -> None:
        """As if the key that sealed these were gone."""
        sealed = Fernet(Fernet.generate_key()).encrypt(b"whsec_x").decode()
        with state.engine.begin() as connection:
            connection.execute(sa.update(Secret).where(which).values(sealed=sealed))

    def rotate(self, state: AppState, subscription: Subscription, overlap: timedelta) -> None:
        with Session(state.engine) as session:
            row = session.get_one(Subscription, subscription.id)
            subscriptions.rotate(state, session, row, now=datetime.now(UTC), overlap=overlap)
            session.commit()

    def test_an_old_one_is_left_out(self, state: AppState) -> None:
        with Receiver(ok()) as receiver:
            subscription = subscribe(state, receiver.url())
            self.rotate(state, subscription, timedelta(days=1))
            self.shut(state, Secret.expires_at.is_not(None))
            fill(state, [subscription], 1)
            run(state)

            assert [row.state for row in deliveries(state)] == ["delivered"]
            assert len(receiver.requests[0].headers["webhook-signature"].split()) == 1

    @pytest.mark.parametrize("overlap", [timedelta(0), timedelta(days=1)])
    def test_rotation_mends_the_current_one(self, state: AppState, overlap: timedelta) -> None:
        with Receiver(ok()) as receiver:
            subscription = subscribe(state, receiver.url())
            self.shut(state, sa.true())
            self.rotate(state, subscription, overlap)
            fill(state, [subscription], 1)
            run(state)

            assert [row.state for row in deliveries(state)] == ["delivered"]
