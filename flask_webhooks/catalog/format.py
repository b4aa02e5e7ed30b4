"""The catalogue format, version 1: every key, what may stand there, and one sentence for the editor.

This page is the only definition. The loader reads through it, and `python -m flask_webhooks.catalog` writes
`flask_webhooks/catalog.schema.json` from it.
"""

from __future__ import annotations

import re

from . import names
from .conditions import OPERATORS
from .containers import Either, Key, ListOf, MapOf, Record
from .key_rules import CHANNEL_RULES, EMIT, KINDS, MOVED
from .validators import Anything, Choice, Flag, Json, Nothing, Number, Scalar, Text

SCHEMA_ID = "https://flask-webhooks.readthedocs.io/catalog.schema.json"
MESSAGE_WORDS = ("label", "event", "channel", "title")
_WEEK, _MOST_WAITS = 7 * 24 * 3600, 50


def _underscored(value: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "_", value.strip()).strip("_")


def _import_path(value: str) -> str | None:
    module, _, name = value.replace("/", ".").rpartition(".")
    return f"{module}:{name}" if module and ":" not in value else None


def _braces(value: str) -> str | None:
    unknown = re.findall(r"(?<!\{)\{([A-Za-z_]\w*)\}(?!\})", value)
    for word in unknown:
        found = names.nearest(word, MESSAGE_WORDS)
        if word not in MESSAGE_WORDS and found is not None:
            return value.replace(f"{{{word}}}", f"{{{found}}}")
    return None


def _name(expected: str, example: str, never: tuple[str, ...] = ()) -> Text:
    return Text(
        f"{expected} (letters, digits, underscores; at most 64)", names.NAME, example, _underscored, never
    )


# The description of one event has to fit into one response.
TEXT = Text(most=3_000)
TITLE = Text(most=200)
FORMAT = _name("the name of a format", "channel")
IMPORT = Text("an import path", names.IMPORT, "example_app.models:Invoice", _import_path)
ATTRIBUTE = Text("the name of an attribute", names.ATTRIBUTE, "status", _underscored)
DOTTED = Text("an attribute or a dotted path of them", names.DOTTED, "client.business_id")
MESSAGE = Text(
    f"a message (in braces only {names.listed(MESSAGE_WORDS)})",
    r"([^{}]|\{\{|\}\}|\{(" + "|".join(MESSAGE_WORDS) + r")\})+",
    "{label} {event} successfully.",
    _braces,
    most=500,
)
FORMATS = ListOf(FORMAT, "a list of formats")
COLUMNS = ListOf(ATTRIBUTE, "a list of columns")
# The bounds are those of the room `retry`, which this one may not import; a test compares them.
SECONDS = Number(f"seconds, from 0 to {_WEEK} (7 days)", 0, _WEEK)
WAITS = ListOf(SECONDS, "a list of seconds", most=_MOST_WAITS, repeats=True)
RETRY = Either((Choice(("standard", "none")), WAITS))
VALUES = Either((Scalar(), ListOf(Scalar(), "a list of values")))

OWNER = Either(
    (
        DOTTED,
        Record(
            "owner",
            'a mapping with "value"',
            {
                "value": Key(
                    Text("the key of the one owner (at most 255)", r"\S([\s\S]{0,253}\S)?", "studio"),
                    "The owner of all rows, in an app with a single tenant.",
                )
            },
            required=("value",),
        ),
    )
)

RENDERING = {
    "format": Key(
        FORMAT, "Envelope of the body: channel, standard, entity, minimal, slack, or one of your own."
    ),
    "formats": Key(FORMATS, "Further formats that a subscription may choose."),
    "retry": Key(RETRY, "standard, none, or the seconds to wait between attempts. Default: WEBHOOKS_RETRY."),
}

DEFAULTS = Record(
    "defaults",
    "a mapping",
    {
        **RENDERING,
        "owner": Key(
            OWNER,
            "Attribute or dotted path that names the tenant, or {value: …}; for channels without an owner.",
        ),
        "ignore": Key(COLUMNS, "Columns whose change alone is no update, for every channel that has them."),
        "message": Key(MESSAGE, "Message of events without their own: {label}, {event}, {channel}, {title}."),
    },
)

CONDITION = Record(
    "condition",
    'a mapping with "from", "to" or both',
    {name: Key(VALUES, operator.help) for name, operator in OPERATORS.items()},
    filled=True,
)
MOVES = Either((Scalar(), ListOf(Scalar(), "a list of values"), CONDITION))
WHEN = MapOf(
    ATTRIBUTE,
    MOVES,
    "a mapping from columns to values",
    special={"changed": Either((Scalar(), COLUMNS, CONDITION))},
)

DEPRECATED = Record(
    "deprecated",
    "a mapping with a reason",
    {
        "reason": Key(TEXT, "Why it is deprecated, and until when it is sent."),
        "replacement": Key(
            Text("an event type", names.EVENT_TYPE, "invoices.paid"), "The event type to use instead."
        ),
    },
    required=("reason",),
)

ON = Either(
    (
        Choice((*KINDS, *MOVED, EMIT)),
        ListOf(Choice((*KINDS, *MOVED)), "a list of created, updated, deleted, moved_in, moved_out"),
    )
)

EVENT = Record(
    "event",
    "a mapping",
    {
        "title": Key(TITLE, "For people: `Invoice paid`."),
        "description": Key(TEXT, "When it happens, for the receiver's developer."),
        "on": Key(
            ON,
            "What makes it happen: created, updated, deleted, moved_in, moved_out (or several), or emit for your "
            "code alone.",
        ),
        "when": Key(
            WHEN, "Column to its new value, or to {from: …, to: …}; `changed: [a, b]` for any change."
        ),
        "ignore": Key(COLUMNS, "A change of these columns alone is no event."),
        "transition": Key(
            _name("the name of a transition", "SUBMIT"), "The name of the step in the format entity: SUBMIT."
        ),
        "message": Key(MESSAGE, "The message in the format channel: {label}, {event}, {channel}, {title}."),
        "schema": Key(IMPORT, "marshmallow schema of this event, instead of the channel's."),
        **RENDERING,
        "deprecated": Key(Either((TEXT, DEPRECATED)), "Why receivers should stop using it."),
        "sample": Key(Anything(), "Example of `data`, for documentation and test requests."),
    },
)

EVENTS = Either(
    (
        ListOf(_name("the name of an event", "created"), "a list of events", least=0),
        MapOf(
            _name("the name of an event", "created"),
            Either((Nothing(), EVENT)),
            "a mapping of events",
            least=0,
        ),
    )
)

# YAML 1.1 knew more words for true and false than editors and JSON do.
_YES_NO = tuple(
    (written, f"Write {meant}.")
    for meant, words in (("true", ("yes", "on", "y")), ("false", ("no", "off", "n")))
    for word in words
    for written in (word, word.title(), word.upper())
)
EXCLUSIVE = Either((Flag(), Choice(("subscription", "owner"), _YES_NO)))

INCLUDE = Record(
    "include",
    'a mapping with "path" or "schema"',
    {
        "path": Key(DOTTED, "Attributes to follow from the row; the include's own name if left out."),
        "schema": Key(IMPORT, "marshmallow schema of the values at that path."),
    },
)
_INCLUDED = Text("an attribute or a dotted path of them", names.DOTTED, "client.address", None, ("changes",))
INCLUDES = Either(
    (
        ListOf(_INCLUDED, "a list of attributes"),
        MapOf(_INCLUDED, Either((Nothing(), DOTTED, INCLUDE)), "a mapping of includes"),
    )
)

CHANNEL = Record(
    "channel",
    "a mapping",
    {
        "title": Key(TITLE, "For people: `Invoices`."),
        "label": Key(TITLE, "Name of a single object, in messages: `Invoice`."),
        "description": Key(TEXT, "What it is about, for the receiver's developer."),
        "model": Key(IMPORT, "Mapped class whose rows change. Leave it out if your code emits the events."),
        "schema": Key(IMPORT, "marshmallow schema of `data`: the one that the GET of your own API uses."),
        "fields": Key(COLUMNS, "Columns that make `data`, instead of a schema."),
        "exclude": Key(COLUMNS, "Columns that are left out of `data`, if there is no schema."),
        "public": Key(COLUMNS, "Columns that sound private and are not: they are sent without a schema."),
        "data": Key(ATTRIBUTE, "Method of the model that returns `data` as a dict: to_dict."),
        "owner": Key(
            OWNER,
            "Attribute or dotted path that names the tenant: `client.business_id`; or {value: …} for all rows.",
        ),
        "events": Key(EVENTS, "A list of created, updated, deleted; or a mapping with details."),
        "includes": Key(INCLUDES, "Additional data that a listener may request."),
        "touches": Key(
            ListOf(ATTRIBUTE, "a list of relationships or channels"),
            "Relationships of the model, or channels, whose rows count as updated when a row here changes.",
        ),
        "exclusive": Key(
            EXCLUSIVE,
            "A subscription to this channel (true), or all those of an owner (owner), can listen to no other channel.",
        ),
        "bulk": Key(
            Choice(("capture", "warn", "raise", "ignore")),
            "What happens to ORM bulk statements on the model. Default: WEBHOOKS_BULK.",
        ),
        "on_error": Key(
            Choice(("record", "raise", "log")),
            "What happens to a row that cannot be serialised. Default: WEBHOOKS_ON_ERROR.",
        ),
        **RENDERING,
    },
    needs=dict.fromkeys(("includes", "touches", "bulk", "fields", "exclude", "public", "data"), "model"),
    rules=CHANNEL_RULES,
)

DOCUMENT = Record(
    "document",
    "a mapping",
    {
        "version": Key(Number("1, the one version of this format", 1, 1), "Version of this format: 1."),
        "title": Key(TITLE, "Name of the product, in the console and in the documentation."),
        "defaults": Key(DEFAULTS, "Defaults for the channels of this file."),
        "channels": Key(
            MapOf(
                _name("the name of a channel", "invoices", (names.RESERVED_CHANNEL,)),
                CHANNEL,
                "a mapping of channels",
            ),
            "Streams of events, each about one resource.",
        ),
    },
    required=("version", "channels"),
    private=True,
)


def json_schema() -> Json:
    """Return the JSON Schema (2020-12) that accepts and refuses the same documents as the loader.

    What only Python can know (a model that does not exist, a key written twice) is the loader's alone.
    """
    defs: Json = {}
    root = DOCUMENT.schema(defs)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": "Flask-Webhooks catalogue",
        **root,
        "$defs": defs,
    }
