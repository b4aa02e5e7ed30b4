"""The principal: a missing value means no caller, never every owner."""

from __future__ import annotations

import dataclasses
import enum
import logging
import typing as t
import uuid

import pytest
from flask import Flask
from werkzeug.local import LocalProxy

from flask_webhooks import ALL_OWNERS, Principal, PrincipalError, Webhooks
from flask_webhooks.state import AppState, state_of
from tests.stage import subscribe


class Tenant(enum.StrEnum):
    """A str of its own kind."""

    ACME = "acme"


class Sly(str):
    """A str that equals everything."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = str.__hash__


NO_OWNERS: tuple[t.Any, ...] = (
    None, "", " ", "\t\n", "None", 0, 1, 1.0, True, b"acme", uuid.UUID(int=1), ["acme"], {"owner": "acme"}, object(),
    LocalProxy(lambda: "acme"), LocalProxy(lambda: None), "a\0", "\ud800", "x" * 256, Ellipsis, frozenset(),
)  # fmt: skip
NO_RIGHTS: tuple[t.Any, ...] = (
    None, "read", ["read"], ("read",), {"read": True}, {"reed"}, {"read", "admin"}, {""}, {None}, {1}, b"read",
)  # fmt: skip


@pytest.mark.parametrize("owner", NO_OWNERS, ids=map(str, range(len(NO_OWNERS))))
def test_what_is_no_owner_is_refused(owner: t.Any) -> None:
    with pytest.raises(PrincipalError, match="owner"):
        Principal(owner, {"read"})
    with pytest.raises(PrincipalError, match="owner"):
        Principal(owner=owner, rights={"read"}, operator=True)
    with pytest.raises(PrincipalError, match="owner"):
        dataclasses.replace(Principal("1"), owner=owner)


def test_a_missing_owner_is_an_error() -> None:
    with pytest.raises(TypeError):
        Principal(rights={"read"}, operator=True)  # type: ignore[call-arg]


@pytest.mark.parametrize("rights", NO_RIGHTS, ids=map(str, range(len(NO_RIGHTS))))
def test_what_are_no_rights_is_refused(rights: t.Any) -> None:
    with pytest.raises(PrincipalError, match="rights"):
        Principal("1", rights)


@pytest.mark.parametrize("operator", [None, 0, 1, "", "no", "yes", ["1"]], ids=repr)
def test_an_operator_is_one_or_not(operator: t.Any) -> None:
    with pytest.raises(PrincipalError, match="operator"):
        Principal("1", {"read"}, operator)


@pytest.mark.parametrize("owner", [Tenant.ACME, Sly("acme")], ids=["enum", "sly"])
def test_an_owner_is_the_text_itself(owner: str) -> None:
    principal = Principal(owner)

    assert type(principal.owner) is str
    assert principal.owner == "acme"


@pytest.mark.parametrize(
    "owner", ["1", "acme ", "ACME", "straße", "\U0001d518", "0", "none", "x" * 255, "a'b\"c\\%_"]
)
def test_every_text_is_an_owner(owner: str) -> None:
    assert Principal(owner).owner == owner
    assert Principal(owner).sees == owner


def test_rights_are_kept_as_they_were_given() -> None:
    rights = {"read"}
    principal = Principal("1", rights)

    rights.add("secrets")

    assert not principal.may("secrets")
    assert not any(Principal("1", set()).may(right) for right in ("read", "write", "secrets"))
    assert Principal("1", {"read": 1, "write": 2}.keys()).rights == {"read", "write"}


def test_all_owners_are_a_value_of_their_own() -> None:
    operator = Principal(ALL_OWNERS, {"read"})

    assert operator.operator
    assert operator.sees is ALL_OWNERS
    assert Principal("1", operator=True).sees is ALL_OWNERS
    assert Principal("all owners").sees == "all owners"
    assert ALL_OWNERS not in ("", None, "all owners", "ALL_OWNERS")


class Lax(Principal):
    """A subclass that passes over the checks of its base."""

    def __post_init__(self) -> None: ...


@pytest.mark.parametrize(
    "returned",
    [
        lambda: {"owner": "1", "token": "S3cret"},
        lambda: Principal({"token": "S3cret"}),  # type: ignore[arg-type]
        lambda: ("1", {"read"}),
        lambda: True,
        lambda: "1",
        lambda: Principal(None),
        lambda: Lax(""),
    ],  # type: ignore[arg-type]
    ids=["dict", "session", "tuple", "bool", "str", "none", "subclass"],
)
def test_a_loader_with_an_invalid_result_lets_no_caller_in(
    make_app: t.Callable[..., Flask], caplog: pytest.LogCaptureFixture, returned: t.Callable[[], t.Any]
) -> None:
    hooks = Webhooks()
    app = make_app(webhooks=hooks)
    with app.app_context():
        row = subscribe(state_of(app), "https://theirs.example/", "*", owner="2")

    @hooks.principal_loader
    def who_is_calling() -> t.Any:
        return returned()

    client = app.test_client()
    with caplog.at_level(logging.ERROR):
        answers = [
            client.get("/webhooks/api/subscriptions"),
            client.delete(f"/webhooks/api/subscriptions/{row.id}"),
            client.get("/webhooks/console/"),
            client.get("/webhooks/api/no/such/path"),
        ]

    assert {answer.status_code for answer in answers} == {500}
    assert not any("theirs.example" in answer.text for answer in answers)
    errors = [str(record.exc_info[1]) for record in caplog.records if record.exc_info and record.exc_info[1]]
    assert len(errors) == 4
    assert not any("S3cret" in error for error in errors)
    assert all("test_principal" in error and "who_is_calling" in error for error in errors)


def test_an_operator_of_no_account_says_whose(make_app: t.Callable[..., Flask]) -> None:
    hooks = Webhooks()
    app = make_app(webhooks=hooks)
    hooks.principal_loader(lambda: Principal(ALL_OWNERS, {"read", "write", "secrets"}))
    client, body = app.test_client(), {"url": "http://127.0.0.1:5999/", "events": ["invoices.*"]}

    refused = client.post("/webhooks/api/subscriptions", json=body)
    made = [
        client.post(
            "/webhooks/api/subscriptions", json={**body, "owner": "7"}, headers={"Idempotency-Key": "k"}
        ).get_json()
        for _ in range(2)
    ]

    assert refused.status_code == 422
    assert refused.get_json()["errors"][0]["field"] == "owner"
    for nobody in (" ", "None", "\u2003"):
        answer = client.post("/webhooks/api/subscriptions", json={**body, "owner": nobody})
        assert (answer.status_code, answer.get_json()["errors"][0]["field"]) == (422, "owner")
    assert made[0]["id"] == made[1]["id"]
    assert made[0]["owner"] == "7"
    assert [each["owner"] for each in client.get("/webhooks/api/subscriptions").get_json()["items"]] == ["7"]
    assert client.get("/webhooks/console/").status_code == 200
    assert client.get("/webhooks/console/webhooks/new").status_code == 403


def test_no_owner_is_empty(state: AppState) -> None:
    """Below the doors too: None is not everybody."""
    from sqlalchemy.orm import Session

    from flask_webhooks import queries, subscriptions
    from flask_webhooks.errors import SubscriptionMissingError

    row = subscribe(state, "https://theirs.example/", "*", owner="2")
    nobody: t.Any = None
    with Session(state.engine) as session:
        for act in (
            subscriptions.find,
            lambda *_, **more: subscriptions.remove(state, session, row.id, **more),
        ):
            with pytest.raises(SubscriptionMissingError):
                act(session, row.id, owner=nobody)
        from datetime import UTC, datetime

        assert queries.overviews(session, owner=nobody, now=datetime.now(UTC)) == []
