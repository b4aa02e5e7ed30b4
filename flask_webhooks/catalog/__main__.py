"""`python -m flask_webhooks.catalog > flask_webhooks/catalog.schema.json`."""

from __future__ import annotations

import json
import sys

from .format import json_schema

if __name__ == "__main__":
    sys.stdout.write(json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n")
