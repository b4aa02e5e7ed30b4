"""Every example of the guide loads, binds and is valid by the editor's JSON Schema."""

from __future__ import annotations

import re
import typing as t
from pathlib import Path

import jsonschema
import pytest

from flask_webhooks.bindings import open_catalog
from flask_webhooks.catalog import json_schema
from flask_webhooks.catalog.yaml_reader import Report, compose, plain
from flask_webhooks.errors import CatalogError

GUIDE = (Path(__file__).parents[2] / "docs" / "catalogue.md").read_text(encoding="utf-8")
MISTAKEN = "<!-- with mistakes -->\n"
SOUND = re.findall(rf"(?<!{MISTAKEN})```yaml\n(.*?)```", GUIDE, re.DOTALL)


def test_examples_are_found() -> None:
    assert len(SOUND) >= 12


@pytest.mark.parametrize("text", SOUND)
def test_example(text: str, write: t.Callable[..., Path]) -> None:
    open_catalog("webhooks.yaml", root=write(text))
    report = Report("webhooks.yaml")
    root = compose(text, report)
    assert root is not None
    assert jsonschema.Draft202012Validator(json_schema()).is_valid(plain(root, "", report))


def test_mistakes_are_reported_as_the_guide_says(write: t.Callable[..., Path]) -> None:
    [text] = re.findall(rf"{MISTAKEN}```yaml\n(.*?)```", GUIDE, re.DOTALL)
    [told] = re.findall(r"```text\n(.*?)```", GUIDE, re.DOTALL)
    with pytest.raises(CatalogError) as caught:
        open_catalog("webhooks.yaml", root=write(text))
    assert str(caught.value) == told.strip()
