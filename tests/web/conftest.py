"""A client of the management API for tests of the room `web`."""

from tests.api.conftest import call

__all__ = ["call"]
