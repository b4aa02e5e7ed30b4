"""Flask-WTF's `CSRFProtect`, where the host has it: it has no token of ours, and would refuse every change.

Our own checks are at least as strict: the console has a token in every form, the API lets only pass what no other site
can make a browser send (`api.origin`). So both are exempt, whichever of the two extensions was initialised first.
"""

from __future__ import annotations

import sys
import typing as t

from flask import Blueprint, current_app

__all__ = ["exempt"]


def exempt(blueprint: Blueprint) -> None:
    """Exempt a blueprint of ours from the host's `CSRFProtect`."""

    def tell(endpoint: str | None, values: dict[str, t.Any] | None) -> None:
        # Before the request functions, of which `CSRFProtect` is one; of our own requests alone.
        module = sys.modules.get("flask_wtf.csrf")
        theirs = current_app.extensions.get("csrf")
        if module is not None and isinstance(theirs, module.CSRFProtect):
            theirs.exempt(blueprint)

    blueprint.url_value_preprocessor(tell)
