"""A client of the management API for what both HTTP doors share."""

from tests.api.conftest import call

__all__ = ["call"]
