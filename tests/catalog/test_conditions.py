"""Operators of conditions: each one is read, restricts what an event fires on, and is described to customers."""

from __future__ import annotations

import itertools
import typing as t

import pytest

from flask_webhooks.catalog import Condition, Kind
from flask_webhooks.catalog.conditions import OPERATORS
from flask_webhooks.catalog.format import CONDITION
from flask_webhooks.console.event_types import condition_text

VALUES = (None, 0, 1, 2)


def fires(condition: Condition) -> set[tuple[t.Any, t.Any]]:
    return {pair for pair in itertools.product(VALUES, VALUES) if condition.holds(Kind.UPDATED, *pair)}


def test_the_format_allows_the_operators_and_no_others() -> None:
    assert set(CONDITION.keys) == set(OPERATORS)


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_restricts_what_an_event_fires_on(name: str) -> None:
    condition = Condition.of({name: (1,)})

    assert fires(condition)
    assert fires(condition) < fires(Condition())
    assert list(condition.operands()) == [(name, (1,))]


@pytest.mark.parametrize("name", OPERATORS)
def test_customers_are_shown_each_operator(name: str) -> None:
    shown = {condition_text("total", Condition.of({each: (1,)})) for each in OPERATORS}

    assert len(shown | {condition_text("total", Condition())}) == len(OPERATORS) + 1


def test_an_operator_that_nothing_knows_is_refused() -> None:
    with pytest.raises(KeyError):
        Condition.of({"above": (1,)})
