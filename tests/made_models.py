"""Where a test puts a model that it made, so that a catalogue can name it."""

import typing as t

Archived: t.Any = None
