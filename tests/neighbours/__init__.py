"""Beside other extensions of Flask; each test is left out where its extension is not installed."""
