"""A customer's server: it verifies every request with the official `standardwebhooks` library and prints it.

It knows nothing of this project: one secret for each path, given as JSON on standard input
(``{"/acme": "whsec_..."}``, a line each time there is one more), one line of JSON on standard output for each
request. The first line is ``{"port": 12345}``.
"""

from __future__ import annotations

import json
import sys
import threading
import time
import typing as t
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

SECRETS: dict[str, str] = {}
LARGEST = 2**20
"""Bytes of a body that is read."""
_printing = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    """Answers 204 to what is verified, 401 to the rest."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        received_at = time.time()
        length = self.headers.get("Content-Length", "0")
        size = int(length) if length.isascii() and length.isdigit() and len(length) < 8 else LARGEST + 1
        body = self.rfile.read(size) if size <= LARGEST else b""
        verified = size == len(body) and self._is_verified(body)
        self.close_connection = self.close_connection or not verified
        self.send_response(204 if verified else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()
        _tell(
            {
                "received_at": received_at,
                "path": self.path,
                "webhook_id": self.headers.get("webhook-id"),
                "verified": verified,
                "body": json.loads(body) if verified else None,
            }
        )

    def _is_verified(self, body: bytes) -> bool:
        secret = SECRETS.get(self.path)
        if secret is None:
            return False
        try:
            Webhook(secret).verify(body, dict(self.headers.items()))
        except (WebhookVerificationError, ValueError):  # the library stumbles over odd signatures and bodies
            return False
        return True

    def log_message(self, format: str, *args: t.Any) -> None:
        """Say nothing: standard output is for the lines."""


def _tell(record: dict[str, t.Any]) -> None:
    with _printing:
        print(json.dumps(record), flush=True)


def main() -> None:
    """Serve until standard input ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    _tell({"port": server.server_port})
    for line in sys.stdin:
        SECRETS.update(json.loads(line))
        _tell({"secrets": len(SECRETS)})
    server.shutdown()


if __name__ == "__main__":
    main()
