from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
import standardwebhooks
from cryptography.fernet import Fernet

from flask_webhooks.cli import webhooks_cli
from flask_webhooks.errors import SecretError
from flask_webhooks.models import IdempotentReply, Secret, Subscription
from flask_webhooks.signing import Vault
from flask_webhooks.state import state_of
from flask_webhooks.subscriptions import reencryption
from tests.receivers import Receiver
from tests.stage import deliveries, fill, secret_of, subscribe, wait_until
from tests.worker.answers import Gate, background, run

REPLY = {"owner": "1", "digest": "", "status": 201}
OLD, NEW = Fernet.generate_key().decode(), Fernet.generate_key().decode()


@pytest.fixture
def old(make_app):
    """An app that seals with the old key, with three subscriptions."""
    state = state_of(make_app(WEBHOOKS_ENCRYPTION_KEYS=OLD))
    for number in range(3):
        sealed = state.vault.seal(json.dumps({"X-Number": str(number)})) if number else None
        subscribe(state, "http://127.0.0.1:9/", headers=sealed)
    return state


def sealed(state):
    with state.engine.connect() as connection:
        secrets = connection.scalars(sa.select(Secret.sealed)).all()
        headers = connection.scalars(sa.select(Subscription.headers)).all()
    return [*secrets, *filter(None, headers)]


def test_after_it_the_new_key_alone_opens_everything(old, make_app):
    app = make_app(WEBHOOKS_ENCRYPTION_KEYS=[NEW, OLD])
    before = {Vault([OLD]).open(text) for text in sealed(old)}

    result = app.test_cli_runner().invoke(webhooks_cli, ["rotate-encryption", "--json"])

    assert result.exit_code == 0, result.output
    assert json.loads(result.output.splitlines()[-1]) == {"done": 5, "unreadable": 0}
    assert {Vault([NEW]).open(text) for text in sealed(old)} == before


def test_deliveries_go_on_before_and_after(old, make_app, inbox):
    state = state_of(make_app(WEBHOOKS_ENCRYPTION_KEYS=[NEW, OLD]))
    subscription = subscribe(old, inbox.url())
    fill(state, [subscription], 1)
    assert run(state).delivered == 1

    list(reencryption.reseal(state))
    fill(state, [subscription], 1)

    assert run(state_of(make_app(WEBHOOKS_ENCRYPTION_KEYS=NEW))).delivered == 1


def test_deliveries_go_on_meanwhile(old, make_app):
    state = state_of(make_app(WEBHOOKS_ENCRYPTION_KEYS=[NEW, OLD]))
    with Receiver(Gate(seconds=0.002)) as receiver:
        rows = [subscribe(old, receiver.url(f"/{n}"), headers=old.vault.seal("{}")) for n in range(10)]
        ids = fill(state, rows, 500)
        with background(state, refresh=0.01) as other:
            wait_until(lambda: len(receiver.requests) >= 20)
            while not other.is_over:
                assert list(reencryption.reseal(state))[-1].unreadable == 0
            report = other.wait()

        received = {request.headers["webhook-id"]: request for request in receiver.requests}
    assert (report.delivered, report.failed) == (500, 0)
    assert sorted(received) == sorted(ids)
    assert len(receiver.requests) == 500
    for row in deliveries(state):
        request = received[row.message_id]
        secret = secret_of(state, next(each for each in rows if each.id == row.subscription_id))
        standardwebhooks.Webhook(secret).verify(request.body, request.headers)


def test_a_repeated_request_is_answered_alike_when_the_old_key_is_gone(old, make_app):
    body = {"url": "http://127.0.0.1:5999/", "events": ["reports.ready"]}
    path, now = "/webhooks/api/subscriptions", datetime.now(UTC)

    def ask(app, key):
        return app.test_client().post(path, json=body, headers={"X-Owner": "1", "Idempotency-Key": key})

    first = {key: ask(old.app, key).json for key in ("a", "z")}  # in two batches, for so many lie between
    rows = [{**REPLY, "key": f"m{number}", "created_at": now} for number in range(reencryption.BATCH)]
    under_way = {**REPLY, "key": "under way", "status": 0, "sealed": "", "created_at": now}
    with old.engine.begin() as connection:
        sealed = old.vault.seal('[{}, ""]')
        connection.execute(sa.insert(IdempotentReply), [{**row, "sealed": sealed} for row in rows])
        connection.execute(sa.insert(IdempotentReply), under_way)
    state = state_of(make_app(WEBHOOKS_ENCRYPTION_KEYS=[NEW, OLD]))
    due = reencryption.count(state)
    sums = list(reencryption.reseal(state))[-1]
    assert (sums.done, sums.unreadable) == (due, 0)

    app = make_app(WEBHOOKS_ENCRYPTION_KEYS=NEW)
    for key, answer in first.items():
        again = ask(app, key)
        assert (again.status_code, again.json) == (201, answer)
        assert again.headers["Idempotency-Replayed"] == "true"


def test_what_no_key_opens_stays_and_is_reported(old, make_app):
    with old.engine.begin() as connection:
        first = connection.scalar(sa.select(Secret.id).order_by(Secret.id).limit(1))
        connection.execute(sa.update(Secret).where(Secret.id == first).values(sealed="junk"))
    app = make_app(WEBHOOKS_ENCRYPTION_KEYS=[NEW, OLD])

    result = app.test_cli_runner().invoke(webhooks_cli, ["rotate-encryption"])

    assert result.exit_code == 1
    assert "Encrypted 4 again; 1 could not be decrypted." in result.output
    assert "junk" in sealed(old)


def test_a_secret_that_is_changed_meanwhile_is_not_overwritten(old, make_app):
    state = state_of(make_app(WEBHOOKS_ENCRYPTION_KEYS=[NEW, OLD]))
    fresh = state.vault.seal("whsec_" + "QUFB" * 10)

    class Slow:
        """A vault during whose work another process rotates a secret."""

        def rotate(self, text: str, place: str = "") -> str:
            with state.engine.begin() as connection:
                connection.execute(sa.update(Secret).values(sealed=fresh))
            return state.vault.rotate(text, place)

    import dataclasses

    list(reencryption.reseal(dataclasses.replace(state, vault=Slow())))

    with state.engine.connect() as connection:
        assert set(connection.scalars(sa.select(Secret.sealed))) == {fresh}


def test_it_may_run_twice(old, make_app):
    state = state_of(make_app(WEBHOOKS_ENCRYPTION_KEYS=[NEW, OLD]))
    subscription = subscribe(state, "http://127.0.0.1:9/")
    secret = secret_of(state, subscription)

    for _ in range(2):
        assert list(reencryption.reseal(state))[-1].unreadable == 0

    assert secret_of(state, subscription) == secret


def test_what_was_sealed_for_anywhere_is_bound_to_its_row(old, make_app):
    state = state_of(make_app(WEBHOOKS_ENCRYPTION_KEYS=[NEW, OLD]))
    with state.engine.connect() as connection:
        rows = connection.execute(sa.select(Secret.id, Secret.sealed)).all()
        for row in rows[:1]:  # between the two it was bound to the row, whosever that is
            sealed = state.vault.seal(state.vault.open(row.sealed), f"secret/{row.id}")
            connection.execute(sa.update(Secret).where(Secret.id == row.id).values(sealed=sealed))
        connection.commit()
    for row in rows:
        assert state.vault.open(row.sealed, "secret/elsewhere")  # as it was

    list(reencryption.reseal(state))

    with state.engine.connect() as connection:
        for row in connection.execute(sa.select(Secret.id, Secret.subscription_id, Secret.sealed)):
            assert state.vault.open(row.sealed, f"secret/{row.subscription_id}/{row.id}")
            for place in ("secret/elsewhere", f"secret/elsewhere/{row.id}", f"secret/{row.id}"):
                with pytest.raises(SecretError, match="another row"):
                    state.vault.open(row.sealed, place)
        for row in connection.execute(sa.select(Subscription.id, Subscription.headers)):
            if row.headers is not None:
                assert state.vault.open(row.headers, f"headers/{row.id}")
                with pytest.raises(SecretError):
                    state.vault.open(row.headers, f"secret/{row.id}")


def test_a_secret_whose_row_was_moved_to_another_subscription_signs_nothing(make_app, inbox):
    """The row of the one whose secret is known stands for the other's: its id is as it was."""
    app = make_app()
    state, clients = state_of(app), [{"X-Owner": owner} for owner in "12"]
    body = {"url": inbox.url(), "events": ["reports.ready"]}
    path = "/webhooks/api/subscriptions"
    _, theirs = [app.test_client().post(path, json=body, headers=who).json["id"] for who in clients]
    with state.engine.begin() as connection:
        connection.execute(sa.delete(Secret).where(Secret.subscription_id == theirs))
        connection.execute(sa.update(Secret).values(subscription_id=theirs))
    fill(state, [type("Row", (), {"id": theirs})()], 2)

    assert run(state).delivered == 0

    assert inbox.requests == []
    assert app.test_client().get(f"{path}/{theirs}/secret", headers=clients[1]).status_code == 500
    assert list(reencryption.reseal(state))[-1].unreadable == 1


def test_a_secret_that_was_copied_into_another_row_signs_nothing(make_app, inbox):
    """Who may write the database must not sign for one subscription with a secret that another's owner knows."""
    app = make_app()
    state, clients = state_of(app), [{"X-Owner": owner} for owner in "12"]
    body = {"url": inbox.url(), "events": ["reports.ready"], "headers": {"X-Key": "sesame"}}
    path = "/webhooks/api/subscriptions"
    mine, theirs = [app.test_client().post(path, json=body, headers=who).json["id"] for who in clients]
    with state.engine.begin() as connection:
        stolen = connection.scalar(sa.select(Secret.sealed).where(Secret.subscription_id == mine))
        connection.execute(sa.update(Secret).where(Secret.subscription_id == theirs).values(sealed=stolen))
        headers = connection.scalar(sa.select(Subscription.headers).where(Subscription.id == theirs))
        connection.execute(sa.update(Subscription).where(Subscription.id == mine).values(headers=headers))
    rows = [type("Row", (), {"id": key})() for key in (mine, theirs)]
    fill(state, rows, 2)

    assert run(state).delivered == 0

    assert inbox.requests == []
    assert app.test_client().get(f"{path}/{theirs}/secret", headers=clients[1]).status_code == 500
    assert list(reencryption.reseal(state))[-1].unreadable == 2
