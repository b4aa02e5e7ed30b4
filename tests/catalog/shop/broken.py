"""A module that raises on import."""

raise RuntimeError("the shop is closed")
