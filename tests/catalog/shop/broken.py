"""Cannot be imported."""

raise RuntimeError("the shop is closed")
