"""Client certificates: an operator sets one; it is encrypted, presented to one host only, and never shown."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from flask_webhooks.checks import Level, check_certificates
from flask_webhooks.models import Subscription
from flask_webhooks.state import AppState
from tests.api.conftest import Customer
from tests.cli.conftest import Command
from tests.console.conftest import Visitor
from tests.receivers import Authority, Receiver, ok
from tests.stage import attempts, fill, subscribe
from tests.worker.answers import run


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def pem(authority: Authority, tmp_path: Path) -> tuple[str, str]:
    """Files of a certificate and its key."""
    paths = tmp_path / "certificate.pem", tmp_path / "key.pem"
    for path, text in zip(paths, authority.client("acme"), strict=True):
        path.write_text(text)
    return str(paths[0]), str(paths[1])


def kept(state: AppState, row: Subscription) -> str | None:
    with Session(state.engine) as session:
        return session.get_one(Subscription, row.id).client_certificate


def test_what_is_given_is_shown_to_its_host_alone(
    make_app, authority: Authority, pem: tuple[str, str]
) -> None:
    app = make_app(WEBHOOKS_CA_BUNDLE=authority.path, WEBHOOKS_RETRY=[0.0])
    from flask_webhooks.cli import webhooks_cli
    from flask_webhooks.state import state_of

    state = state_of(app)
    with (
        Receiver(ok(), tls=authority.demanding("127.0.0.1", "127.0.0.2")) as receiver,
        Receiver(ok(), tls=authority.demanding("127.0.0.2"), address="127.0.0.2") as elsewhere,
    ):
        row = subscribe(state, receiver.url())
        fill(state, [row], 1)
        assert run(state).delivered == 0
        words = ["client-certificates", row.id, "--certificate", pem[0], "--key", pem[1]]
        result = app.test_cli_runner().invoke(webhooks_cli, words)
        assert result.exit_code == 0, result.output
        assert "CN=acme, valid until" in result.output
        fill(state, [row], 1)
        assert run(state).delivered >= 1

        with state.engine.begin() as connection:
            connection.execute(sa.update(Subscription).values(url=elsewhere.url(host="127.0.0.2")))
        before = len(attempts(state))
        fill(state, [row], 1)
        run(state)

        last = attempts(state)[before]
        assert (last.failure, elsewhere.requests) == ("tls", [])
        assert "client certificate" in last.detail


def test_the_key_is_sealed_and_shown_nowhere(
    state: AppState, flask_webhooks: Command, pem: tuple[str, str]
) -> None:
    row = subscribe(state, "https://hooks.example.com/", owner="1")
    told = flask_webhooks("client-certificates", row.id, "--certificate", pem[0], "--key", pem[1]).output
    told += flask_webhooks("client-certificates").output
    [listed] = json.loads(flask_webhooks("client-certificates", "--json").output)
    sealed = kept(state, row)
    assert sealed is not None
    assert "PRIVATE KEY" in state.vault.open(sealed)
    told += flask_webhooks("subscriptions", "--json").output
    app = state.app
    told += json.dumps(Customer(app.test_client())("GET", f"/subscriptions/{row.id}", expect=200))
    told += Visitor(app).get(f"/webhooks/{row.id}").text

    assert (listed["subject"], listed["host"], listed["is_shown"]) == ("CN=acme", "hooks.example.com", True)
    assert sealed not in told
    assert "PRIVATE" not in told


def test_it_is_sealed_anew_with_a_new_key_and_goes_with_its_subscription(
    state: AppState, flask_webhooks: Command, pem: tuple[str, str]
) -> None:
    row = subscribe(state, "https://hooks.example.com/")
    flask_webhooks("client-certificates", row.id, "--certificate", pem[0], "--key", pem[1])
    before = kept(state, row)
    flask_webhooks("rotate-encryption")
    after = kept(state, row)

    assert before is not None and after is not None  # noqa: PT018
    assert before != after
    assert state.vault.open(before) == state.vault.open(after)
    Customer(state.app.test_client())("DELETE", f"/subscriptions/{row.id}", expect=204)
    assert kept(state, row) is None


def test_it_can_be_removed(state: AppState, flask_webhooks: Command, pem: tuple[str, str]) -> None:
    row = subscribe(state, "https://hooks.example.com/")
    flask_webhooks("client-certificates", row.id, "--certificate", pem[0], "--key", pem[1])
    result = flask_webhooks("client-certificates", row.id, "--remove")

    assert "no client certificate" in result.output
    assert kept(state, row) is None
    assert "No subscription has" in flask_webhooks("client-certificates").output


def test_what_does_not_fit_is_one_sentence(
    state: AppState, flask_webhooks: Command, pem: tuple[str, str], tmp_path: Path
) -> None:
    row, plain = subscribe(state, "https://hooks.example.com/"), subscribe(state, "http://hooks.example.com/")
    (tmp_path / "der").write_bytes(b"\x30\x82\xff\x00")
    both = ["--certificate", pem[0], "--key", pem[1]]
    for words, said in (
        ([row.id, "--certificate", pem[0], "--key", pem[0]], "The key cannot be read."),
        ([row.id, "--certificate", str(tmp_path / "der"), "--key", pem[1]], "certificate cannot be read"),
        ([plain.id, *both], "sends to plain http"),
        (["0197f0a0-0000-7000-8000-000000000000", *both], "There is no such subscription"),
    ):
        result = flask_webhooks("client-certificates", *words, expect=1)
        assert said in result.output
        assert result.output.count("\n") == 1
    for words in ([row.id], [row.id, "--remove", *both], [row.id, *both[:2]], both):
        flask_webhooks("client-certificates", *words, expect=2)
    assert kept(state, row) is None


def test_check_lists_those_that_expire_soon(
    state: AppState, flask_webhooks: Command, pem: tuple[str, str]
) -> None:
    row = subscribe(state, "https://hooks.example.com/")
    now = datetime.now(UTC)
    assert check_certificates(state, now) is None
    flask_webhooks("client-certificates", row.id, "--certificate", pem[0], "--key", pem[1])  # for a day
    soon, over = check_certificates(state, now), check_certificates(state, now + timedelta(days=2))
    long_before = check_certificates(state, now - timedelta(days=60))
    assert soon is not None and over is not None and long_before is not None  # noqa: PT018

    assert long_before.findings == ()
    assert [finding.level for finding in (*soon.findings, *over.findings)] == [Level.WARNING] * 2
    assert "(CN=acme) expires on" in soon.findings[0].message
    assert "expired on" in over.findings[0].message
    with state.engine.begin() as connection:
        connection.execute(sa.update(Subscription).values(client_certificate="damaged"))
    damaged = check_certificates(state, now)
    assert damaged is not None
    assert not damaged.ok
