"""Which channels cannot be combined, and the error for it."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from flask_webhooks.catalog import Catalog, load
from flask_webhooks.errors import ExclusivityError

CHANNELS = """\
version: 1
channels:
  invoices: {events: [created, paid]}
  clients: {events: [created]}
  ledgers: {events: [created, updated], exclusive: true}
  journals: {events: [posted], exclusive: owner}
"""


@pytest.fixture
def catalog(write: t.Callable[..., Path]) -> Catalog:
    return load("webhooks.yaml", root=write(CHANNELS))


@pytest.mark.parametrize(
    ("patterns", "held"),
    [
        ([], []),
        (["*"], []),
        (["*", "invoices.*", "clients.created"], []),
        (["ledgers.*"], []),
        (["ledgers.created", "ledgers.updated", "ledgers.*"], []),
        # Scope subscription: what the owner's other subscriptions hold is no matter.
        (["ledgers.*"], ["invoices.*", "*"]),
        (["invoices.*"], ["ledgers.*"]),
        (["journals.posted"], []),
        (["journals.posted"], ["journals.*"]),
    ],
)
def test_may_be_held(catalog: Catalog, patterns: list[str], held: list[str]) -> None:
    catalog.check_exclusive(patterns, held)


@pytest.mark.parametrize(
    ("patterns", "held", "said"),
    [
        (
            ["ledgers.created", "invoices.paid", "invoices.created"],
            [],
            'The channel "ledgers" is exclusive: a subscription that listens to it may listen to nothing else. '
            'It cannot be held together with "invoices". To take "ledgers", unsubscribe from invoices.paid, '
            "invoices.created; to keep those, unsubscribe from ledgers.*.",
        ),
        (
            ["ledgers.*", "*"],
            [],
            'The channel "ledgers" is exclusive: a subscription that listens to it may listen to nothing else. '
            'It cannot be held together with every channel (*). To take "ledgers", unsubscribe from *; '
            "to keep those, unsubscribe from ledgers.*.",
        ),
        (
            ["journals.posted"],
            ["invoices.*", "clients.created"],
            'The channel "journals" is exclusive: while one subscription listens to it, no other of the same owner '
            'may listen to anything else. The owner\'s other active subscriptions hold "invoices", "clients": '
            'unsubscribe them from invoices.*, clients.created first, or leave "journals" out here.',
        ),
        (
            ["invoices.*"],
            ["journals.posted"],
            'The channel "journals" is exclusive: while one subscription listens to it, no other of the same owner '
            'may listen to anything else. Another active subscription holds "journals": unsubscribe that from '
            "journals.* first, or leave invoices.* out here.",
        ),
    ],
)
def test_is_refused(catalog: Catalog, patterns: list[str], held: list[str], said: str) -> None:
    with pytest.raises(ExclusivityError) as caught:
        catalog.check_exclusive(patterns, held)
    assert str(caught.value) == said
    assert caught.value.fields == {"events": [said]}


@pytest.mark.parametrize("patterns", [["ledgers.created", "journals.posted"], ["*", "journals.*"]])
def test_two_exclusive_ones_and_star_are_refused(catalog: Catalog, patterns: list[str]) -> None:
    with pytest.raises(ExclusivityError):
        catalog.check_exclusive(patterns)


def test_star_of_another_subscription_counts_for_the_owner(catalog: Catalog) -> None:
    with pytest.raises(ExclusivityError, match=r"hold every channel \(\*\)"):
        catalog.check_exclusive(["journals.*"], ["*"])


def test_star_never_matches_an_exclusive_channel(catalog: Catalog) -> None:
    assert [event.name for event in catalog.expand("*")] == [
        "invoices.created",
        "invoices.paid",
        "clients.created",
    ]
    assert catalog.patterns("ledgers.created") == ("ledgers.created", "ledgers.*")
    assert catalog.patterns("invoices.paid") == ("invoices.paid", "invoices.*", "*")


@pytest.mark.parametrize("event", ["invoices.created", "ledgers.updated", "journals.posted"])
def test_patterns_are_those_that_expand_to_the_event(catalog: Catalog, event: str) -> None:
    every = [*catalog.events, *(f"{name}.*" for name in catalog.channels), "*"]
    found = {pattern for pattern in every if event in {each.name for each in catalog.expand(pattern)}}
    assert found == set(catalog.patterns(event))
