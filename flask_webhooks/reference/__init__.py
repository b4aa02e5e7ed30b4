"""The catalogue as documentation: for the API, the console, and `flask webhooks catalog`.

=============  ================================================================
`json_schema`  `data` of an event as JSON Schema, and an example made from that
`examples`     what a receiver gets: an example of every event in every format
`openapi`      the same as JSON Schema: a `webhooks` section of OpenAPI 3.1
`listing`      channels and events as plain values, and as a table
`markdown`     a page in Markdown for the customers' documentation
=============  ================================================================
"""

from __future__ import annotations

from .examples import SAMPLE_ID, bodies, example_body, example_data
from .json_schema import data_schema, sample_data
from .listing import event_values, includes, listing, table
from .markdown import page
from .openapi import document, tags, webhook

__all__ = [
    "SAMPLE_ID",
    "bodies",
    "data_schema",
    "document",
    "event_values",
    "example_body",
    "example_data",
    "includes",
    "listing",
    "page",
    "sample_data",
    "table",
    "tags",
    "webhook",
]
