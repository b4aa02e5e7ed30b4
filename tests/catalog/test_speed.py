"""Loading is part of every start of every process, and of every reload in development."""

from __future__ import annotations

import sys
import time
import typing as t
from pathlib import Path

import pytest

from flask_webhooks.catalog import load

CHANNEL = """\
  resource_{n}:
    title: Resources {n}
    label: Resource {n}
    model: shop.models:Resource{n}
    schema: shop.schemas:Resource{n}Schema
    owner: client.business_id
    includes: [client, lines, author]
    events:
      created:
      updated: {{ignore: [updated_at]}}
      deleted:
"""
EVENT = (
    "      step_{n}: {{when: {{status: {{from: [sent, overdue], to: paid_{n}}}}}, transition: STEP_{n}}}\n"
)


def catalogue(channels: int, events: int) -> str:
    steps = "".join(EVENT.format(n=n) for n in range(events - 3))
    return "version: 1\nchannels:\n" + "".join(CHANNEL.format(n=n) + steps for n in range(channels))


@pytest.mark.skipif(sys.gettrace() is not None, reason="coverage or a debugger makes everything slow")
def test_31_channels_with_310_events_load_in_50_ms(write: t.Callable[..., Path]) -> None:
    root = write(catalogue(31, 10))
    best = 1.0
    for _ in range(7):
        start = time.perf_counter()
        catalog = load("webhooks.yaml", root=root)
        best = min(best, time.perf_counter() - start)
    assert (len(catalog.channels), len(catalog.events)) == (31, 310)
    # The best of several: a busy machine is not what is measured.
    assert best < 0.050, f"took {best * 1000:.1f} ms"
