"""Certificates for TLS: trusted authorities, our client certificates, and the meaning of a failed handshake.

The law of this room: bundles add authorities and never replace them, and a private key is unencrypted only in memory.
Python's `ssl` reads keys only from files, so a key is written to a temporary file, encrypted with a random password
that never leaves this process.
"""

from __future__ import annotations

import functools
import json
import os
import re
import secrets
import ssl
import tempfile
import typing as t
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import urlsplit

import requests
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from ..errors import ErrorText

__all__ = [
    "CertificateError",
    "ClientCertificate",
    "bundle_fault",
    "new_context",
    "parse_client_certificate",
    "tls_detail",
]

MOST_PEM: t.Final = 65_536
"""Characters of a certificate with its chain, and of a key."""


class CertificateError(ValueError):
    """What is wrong with a certificate or a key: an `ErrorText` that shows neither."""


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A certificate with its key, which we present to a receiver that requests one."""

    certificate: str = field(repr=False)
    """PEM: our certificate first, then its intermediate authorities, up to one that the receiver knows."""
    key: str = field(repr=False)
    """PEM, not encrypted."""
    host: str = ""
    """The only host that it is presented to, spelled as in URLs."""

    @classmethod
    def load(cls, text: str) -> ClientCertificate:
        """Return the certificate from the JSON that `dump` made."""
        return cls(**json.loads(text))

    def dump(self) -> str:
        """Return certificate, key and host as JSON; the caller encrypts it before it is stored."""
        return json.dumps({"certificate": self.certificate, "key": self.key, "host": self.host})

    def fits(self, url: str) -> bool:
        """Whether it may be presented to the host of a URL."""
        return urlsplit(url).hostname == self.host

    @property
    def subject(self) -> str:
        """Its subject, such as `CN=webhooks.example.com` (RFC 4514)."""
        return self._first.subject.rfc4514_string()

    @property
    def expires_at(self) -> datetime:
        """The instant after which it is no longer valid (UTC)."""
        return self._first.not_valid_after_utc

    @property
    def _first(self) -> x509.Certificate:
        return x509.load_pem_x509_certificates(self.certificate.encode())[0]


# ---- authorities -----------------------------------------------------------------------------------------


def bundle_fault(path: str) -> str | None:
    """Return the fault of a file of authorities; None if it can be used."""
    if not os.path.isfile(path):
        return "there is no such file"
    return _content_fault(path, os.stat(path).st_mtime_ns)


# Each app of a process checks its files, and parsing a hundred authorities is slow.
@functools.lru_cache(maxsize=8)
def _content_fault(path: str, changed_at: int) -> str | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=path)
    except ssl.SSLError:
        return "it holds no certificate in PEM"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return None if context.cert_store_stats()["x509"] else "it holds no certificate in PEM"


def new_context(verify: bool | str, bundles: Sequence[str]) -> ssl.SSLContext:
    """Return a TLS context for clients.

    :param verify: see `Transport`.
    :param bundles: files of additional trusted authorities.
    """
    if verify is False:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    path = requests.utils.DEFAULT_CA_BUNDLE_PATH if verify is True else verify
    is_folder = os.path.isdir(path)
    context = ssl.create_default_context(
        cafile=None if is_folder else path, capath=path if is_folder else None
    )
    for bundle in bundles:
        context.load_verify_locations(cafile=bundle)
    return context


# ---- client certificates ---------------------------------------------------------------------------------


def parse_client_certificate(certificate: str, key: str, host: str, now: datetime) -> ClientCertificate:
    """Check that a certificate and its key can be used, and return both in normal form.

    :param certificate: PEM: our certificate first, then its chain.
    :param key: PEM, not encrypted.
    :param host: the only host that it is presented to.
    :param now: the instant at which it has to be valid.
    :raises CertificateError: says what is wrong, and what to do.
    """
    if max(len(certificate), len(key)) > MOST_PEM:
        raise CertificateError(ErrorText("certificate_too_long", most=MOST_PEM))
    chain, private = _certificates(certificate), _key(key)
    first = chain[0]
    if _public(private.public_key()) != _public(first.public_key()):
        raise CertificateError(ErrorText("certificate_of_other_key"))
    if now >= first.not_valid_after_utc:
        raise CertificateError(ErrorText("certificate_expired", date=f"{first.not_valid_after_utc:%Y-%m-%d}"))
    if now < first.not_valid_before_utc:
        raise CertificateError(
            ErrorText("certificate_not_yet_valid", date=f"{first.not_valid_before_utc:%Y-%m-%d}")
        )
    if not _is_for_clients(first):
        raise CertificateError(ErrorText("certificate_not_for_clients"))
    text = "".join(each.public_bytes(Encoding.PEM).decode() for each in chain)
    clear = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, serialization.NoEncryption())
    found = ClientCertificate(text, clear.decode(), host)
    try:
        add_client_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), found)
    except (OSError, ValueError) as error:
        raise CertificateError(
            ErrorText("certificate_refused", reason=str(getattr(error, "reason", error)))
        ) from None
    return found


def _certificates(text: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        raise CertificateError(ErrorText("certificate_unreadable")) from None


def _key(text: str) -> t.Any:
    block = _KEY_BLOCK.search(text)  # the file may hold the certificate as well
    try:
        return serialization.load_pem_private_key((block[0] if block else "").encode(), password=None)
    except TypeError:
        raise CertificateError(ErrorText("certificate_key_encrypted")) from None
    except Exception:  # cryptography raises several classes, also for an unknown curve or algorithm
        raise CertificateError(ErrorText("certificate_key_unreadable")) from None


def _public(key: t.Any) -> bytes:
    return t.cast("bytes", key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def _is_for_clients(certificate: x509.Certificate) -> bool:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    except ValueError:  # the extensions cannot be parsed: let OpenSSL decide
        return True
    wanted = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)
    return any(each in usage for each in wanted)


def add_client_certificate(context: ssl.SSLContext, identity: ClientCertificate) -> None:
    """Make a context present a certificate to receivers that request one.

    :raises OSError: OpenSSL refuses the certificate or its key.
    """
    private: t.Any = serialization.load_pem_private_key(identity.key.encode(), password=None)
    password = secrets.token_bytes(32).hex().encode()
    sealed = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password))
    with tempfile.NamedTemporaryFile(prefix="webhooks-", suffix=".pem") as file:  # of mode 0600
        file.write(identity.certificate.encode() + sealed)
        file.flush()
        context.load_cert_chain(file.name, password=password)


# ---- failures --------------------------------------------------------------------------------------------

_KEY_BLOCK: t.Final = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----", re.DOTALL
)
_REASONS: t.Final = (
    ("CERTIFICATE_REQUIRED", "the receiver asks for a client certificate, which this webhook does not have"),
    ("ALERT_UNKNOWN_CA", "the receiver does not know the authority of our client certificate"),
    ("ALERT_CERTIFICATE_EXPIRED", "the receiver finds our client certificate expired"),
    ("ALERT_CERTIFICATE_REVOKED", "the receiver finds our client certificate revoked"),
    ("ALERT_BAD_CERTIFICATE", "the receiver refuses our client certificate, or the lack of one"),
    ("ALERT_CERTIFICATE_UNKNOWN", "the receiver refuses our client certificate"),
    ("ALERT_UNSUPPORTED_CERTIFICATE", "the receiver refuses the kind of our client certificate"),
    ("ALERT_ACCESS_DENIED", "the receiver refuses our client certificate: access denied"),
    ("ALERT_DECRYPT_ERROR", "the receiver cannot verify our client certificate"),
    ("UNRECOGNIZED_NAME", "the receiver has no certificate for this host name"),
    ("PROTOCOL_VERSION", "the receiver and we have no TLS version in common: 1.2 is the oldest that is used"),
    (
        "UNSUPPORTED_PROTOCOL",
        "the receiver and we have no TLS version in common: 1.2 is the oldest that is used",
    ),
    (
        "HANDSHAKE_FAILURE",
        "the receiver broke it off; it has no cipher in common, or asks for a client certificate",
    ),
    ("DH_KEY_TOO_SMALL", "the receiver's keys are too short"),
    ("EE_KEY_TOO_SMALL", "the receiver's keys are too short"),
    ("WRONG_VERSION_NUMBER", "what answers does not speak TLS"),
    ("HTTP_REQUEST", "what answers does not speak TLS"),
)
"""Parts of OpenSSL's reason names (the whole names differ between versions), and their meaning for an attempt."""


def tls_detail(error: OSError) -> str:
    """Return why TLS failed, in one line for the owner."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"The certificate did not verify: {error.verify_message}"
    reason = str(getattr(error, "reason", None) or "")
    if not reason:
        return "The TLS handshake failed."
    meaning = next((meaning for name, meaning in _REASONS if name in reason), None)
    return f"The TLS handshake failed: {reason}." if meaning is None else f"TLS failed: {meaning} ({reason})."
