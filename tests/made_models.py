"""Holds a model that a test has made, so that a catalogue can name it."""

import typing as t

Archived: t.Any = None
