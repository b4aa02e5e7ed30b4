"""Tests with other Flask extensions; each is skipped where its extension is not installed."""
