"""TLS contexts: one for every request without a client certificate, and one for each client certificate."""

from __future__ import annotations

import contextlib
import functools
import ssl
import typing as t

from ..outcome import Failure
from .certificates import ClientCertificate, add_client_certificate, new_context
from .dialer import Unready

__all__ = ["Contexts"]

MOST_IDENTITIES: t.Final = 64
"""Client certificates whose context is cached: each holds all authorities, about a megabyte."""


class Contexts:
    """Makes and caches the contexts; see `Transport` for the parameters."""

    def __init__(self, verify: bool | str, bundles: tuple[str, ...]) -> None:
        self._verify, self._bundles = verify, bundles
        self._with = functools.lru_cache(MOST_IDENTITIES)(self._make)
        # Load the authorities early. If a file is unreadable, the first attempt tries again, and reports it.
        with contextlib.suppress(OSError):
            self.of_all()

    def of(self, identity: ClientCertificate | None) -> ssl.SSLContext:
        """Return the context for a client certificate, or for None.

        :raises Unready: a file of authorities cannot be read, no temporary file can be written, or OpenSSL refuses our
            certificate.
        """
        try:
            return self.of_all() if identity is None else self._with(identity)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            log = f"our certificates cannot be loaded: {type(error).__name__}: {error}"
            raise Unready(Failure.TLS, "The sender cannot load its own certificates.", log) from error

    def of_all(self) -> ssl.SSLContext:
        return _shared_context(self._verify, self._bundles, ssl.SSLContext)

    def _make(self, identity: ClientCertificate) -> ssl.SSLContext:
        context = new_context(self._verify, self._bundles)
        add_client_certificate(context, identity)
        return context


@functools.lru_cache(maxsize=4)  # parsing a hundred authorities takes longer than the rest of the start
def _shared_context(
    verify: bool | str, bundles: tuple[str, ...], kind: type[ssl.SSLContext]
) -> ssl.SSLContext:
    """Return the context that all apps of a process share.

    :param kind: the current `ssl.SSLContext`: part of the cache's key, because gevent replaces the class.
    """
    return new_context(verify, bundles)
