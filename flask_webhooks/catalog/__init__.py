"""The catalogue: YAML to channels and event types, with every mistake of the text in one error.

A pure room: no Flask, no SQLAlchemy, no marshmallow; what needs those is in `flask_webhooks.bindings`.

=============  =======================================================================
`format`       the whole format on one page, and the JSON Schema made from it
`validators`   single values: read a node or refuse it; write JSON Schema
`containers`   the same for lists and mappings
`key_rules`    what must hold between the keys of a channel or an event
`yaml_reader`  YAML with lines; the one place that touches PyYAML
`sources`      files, package resources, entry points
`loader`       sources to one `Catalog`
`builder`      defaults worked in
`conditions`   kinds of changes, and what `when` asks of a column
`model`        `Catalog`, `Channel`, `EventType`: what everyone else uses
`exclusivity`  which channels may not be held together
`lock`         what a receiver relies on, written down, and compared later
`names`        patterns of names, "did you mean"
=============  =======================================================================
"""

from __future__ import annotations

from .conditions import Condition, Kind, same
from .exclusivity import check_exclusive
from .format import SCHEMA_ID, json_schema
from .loader import examine, load
from .lock import ANY, Change, Fields, build_lock, compare
from .model import Catalog, Channel, Deprecation, EventType, Include, Scope
from .names import (
    RESERVED_CHANNEL,
    did_you_mean,
    listed,
    nearest,
    plural,
    suggestion,
    unknown_channel,
    unknown_event,
)

__all__ = [
    "ANY",
    "RESERVED_CHANNEL",
    "SCHEMA_ID",
    "Catalog",
    "Change",
    "Channel",
    "Condition",
    "Deprecation",
    "EventType",
    "Fields",
    "Include",
    "Kind",
    "Scope",
    "build_lock",
    "check_exclusive",
    "compare",
    "did_you_mean",
    "examine",
    "json_schema",
    "listed",
    "load",
    "nearest",
    "plural",
    "same",
    "suggestion",
    "unknown_channel",
    "unknown_event",
]
