"""Principals that the example app does not have: an operator, and a customer without any webhook."""

from __future__ import annotations

import dataclasses

from flask import Flask, request

from flask_webhooks import Principal
from flask_webhooks.state import state_of

__all__ = ["NEWCOMER", "OPERATOR", "let_dress_up"]

OPERATOR = {"X-Guise": "operator"}
NEWCOMER = {"X-Guise": "newcomer"}
"""Headers for a browser that is signed in."""


def let_dress_up(app: Flask) -> None:
    """Let the header `X-Guise` change the principal of a signed-in user."""
    state = state_of(app)
    load = state.load_principal

    def load_dressed() -> Principal | None:
        found = load()
        guise = request.headers.get("X-Guise")
        if found is None or guise is None:
            return found
        if guise == "operator":
            return dataclasses.replace(found, operator=True)
        return dataclasses.replace(found, owner=guise)

    object.__setattr__(state, "load_principal", load_dressed)
