"""Additional authorities, client certificates, and the errors of receivers under TLS."""

from __future__ import annotations

import os
import ssl
import tempfile
import threading
import typing as t
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID
from flask import Flask

from flask_webhooks import ConfigurationError
from flask_webhooks.config import Settings
from flask_webhooks.outcome import Failure
from flask_webhooks.state import state_of
from flask_webhooks.transport import (
    CertificateError,
    ClientCertificate,
    Outbound,
    parse_client_certificate,
)
from flask_webhooks.transport.certificates import new_context
from tests.receivers import Authority, Behaviour, Receiver, Talk, ok, response
from tests.transport.conftest import Make, outbound

NOW = datetime.now(UTC)


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Another authority, which is trusted only if configured."""
    return Authority(tmp_path_factory.mktemp("other"), "Nobody's authority")


def showing(url: str, identity: ClientCertificate | None) -> Outbound:
    return Outbound(url, {}, b"{}", identity)


def of(authority: Authority, name: str = "sender") -> ClientCertificate:
    return parse_client_certificate(*authority.client(name), "127.0.0.1", NOW)


# Authorities


def test_a_bundle_adds_to_the_authorities_that_are_known(
    make: Make, authority: Authority, other: Authority
) -> None:
    transport = make(verify=authority.path, bundles=[other.path])
    for each in (authority, other):
        with Receiver(ok(), tls=each.context("127.0.0.1")) as receiver:
            assert transport.send(outbound(receiver.url())).failure is None


def test_the_public_authorities_stay(other: Authority) -> None:
    public = {str(each["subject"]) for each in new_context(True, ()).get_ca_certs()}
    both = {str(each["subject"]) for each in new_context(True, [other.path]).get_ca_certs()}

    assert public < both
    assert len(both - public) == 1


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_setting_reaches_receivers_of_a_private_authority(
    make_app: t.Callable[..., Flask], other: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with Receiver(ok(), tls=other.context("127.0.0.1")) as receiver:
        without = state_of(make_app()).transport.send(outbound(receiver.url()))
        with_it = state_of(make_app(WEBHOOKS_CA_BUNDLE=Path(other.path))).transport.send(
            outbound(receiver.url())
        )

    assert (without.failure, with_it.failure) == (Failure.TLS, None)
    assert "unable to get local issuer" in without.detail


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_without_it_the_bundle_of_the_environment_is_added(
    make_app: t.Callable[..., Flask], other: Authority, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.setenv(variable, other.path)
    with Receiver(ok(), tls=other.context("127.0.0.1")) as receiver:
        assert state_of(make_app()).transport.send(outbound(receiver.url())).failure is None


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_missing_file_is_logged_and_does_not_stop_the_app(
    make_app: t.Callable[..., Flask], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere.pem")
    make_app()

    assert "ca_bundle.unreadable" in caplog.text


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "there is no such file"),
        ("", "no certificate in PEM"),
        ("not PEM", "no certificate in PEM"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no certificate in PEM"),
        ("key", "no certificate in PEM"),
    ],
)
def test_a_bundle_that_is_none_is_refused_at_the_start(
    tmp_path: Path, authority: Authority, content: str | None, fault: str
) -> None:
    path = tmp_path / "bundle.pem"
    if content is not None:
        path.write_text(authority.client()[1] if content == "key" else content)
    with pytest.raises(ConfigurationError, match=rf"(?i)^WEBHOOKS_CA_BUNDLE is '.*{fault}\.$"):
        Settings.read({"WEBHOOKS_CA_BUNDLE": str(path)})


@pytest.mark.parametrize("value", ["/", "", 1, ["a"], b"\xff"])
def test_so_is_what_is_no_path_of_a_file(value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^WEBHOOKS_CA_BUNDLE .* path of a file"):
        Settings.read({"WEBHOOKS_CA_BUNDLE": value})


# Client certificates


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=str)
def test_a_receiver_that_asks_is_shown_the_certificate(
    make: Make, authority: Authority, version: ssl.TLSVersion
) -> None:
    seen: list[t.Any] = []

    def look(talk: Talk) -> None:
        seen.append(t.cast("ssl.SSLSocket", talk.sock).getpeercert())
        ok()(talk)

    context = authority.demanding("127.0.0.1")
    context.maximum_version = version
    with Receiver(look, tls=context) as receiver:
        reply = make(verify=authority.path).send(showing(receiver.url(), of(authority, "acme")))

        assert reply.failure is None
    assert seen[0]["subject"] == ((("commonName", "acme"),),)


def test_no_one_uses_the_connection_of_another_certificate(make: Make, authority: Authority) -> None:
    seen: list[str] = []

    def look(talk: Talk) -> None:
        peer = t.cast("t.Any", talk.sock).getpeercert()
        while True:
            talk.read_request()
            seen.append(peer["subject"][0][0][1] if peer else "")
            talk.send(response())

    context = authority.demanding("127.0.0.1")
    context.verify_mode = ssl.CERT_OPTIONAL
    transport, one, two = make(verify=authority.path), of(authority, "one"), of(authority, "two")
    with Receiver(look, tls=context) as receiver:
        for identity in (one, two, None, one, two, None, two):
            assert transport.send(showing(receiver.url(), identity)).failure is None

        assert seen == ["one", "two", "", "one", "two", "", "two"]
        assert receiver.connections == 3


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=str)
@pytest.mark.parametrize(
    ("shows", "said"), [("nothing", "client certificate"), ("another's", "does not know the authority")]
)
def test_what_the_receiver_says_of_it_is_a_tls_failure_with_its_reason(
    make: Make, authority: Authority, other: Authority, version: ssl.TLSVersion, shows: str, said: str
) -> None:
    """With TLS 1.3 it says so in the place of its answer: "connect", and a firewall, were suspected."""
    context = authority.demanding("127.0.0.1")
    context.minimum_version = context.maximum_version = version
    identity = of(other) if shows == "another's" else None
    with Receiver(ok(), tls=context) as receiver:
        reply = make(verify=authority.path).send(showing(receiver.url(), identity))

        assert reply.failure is Failure.TLS, reply
        assert said in reply.detail
        assert not reply.is_ours
        assert receiver.requests == []


def test_an_alert_on_a_kept_connection_is_tried_once_more_on_a_new_one(
    make: Make, authority: Authority
) -> None:
    """A receiver that wants another certificate from now on says so there too."""
    context = authority.demanding("127.0.0.1")
    context.verify_mode = ssl.CERT_NONE
    answered = threading.Event()

    def behave(talk: Talk) -> None:
        talk.read_request()
        talk.send(response())
        context.verify_mode = ssl.CERT_REQUIRED
        answered.set()

    transport = make(verify=authority.path)
    with Receiver(behave, tls=context) as receiver:
        assert transport.send(outbound(receiver.url())).failure is None
        assert answered.wait(10)
        reply = transport.send(outbound(receiver.url()))

        assert reply.failure is Failure.TLS
        assert "client certificate" in reply.detail


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_a_receiver_with_an_old_version_of_tls_is_a_tls_failure(make: Make, authority: Authority) -> None:
    context = authority.context("127.0.0.1")
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with Receiver(ok(), tls=context) as receiver:
        reply = make(verify=authority.path).send(outbound(receiver.url()))

    assert reply.failure is Failure.TLS
    assert "1.2 is the oldest" in reply.detail


def _alert(description: int) -> Behaviour:
    """Answer a ClientHello with a fatal alert."""

    def behave(talk: Talk) -> None:
        talk.sock.recv(4096)
        talk.send(bytes([0x15, 3, 3, 0, 2, 2, description]))

    return behave


@pytest.mark.parametrize(
    ("description", "said"),
    [
        (40, "broke it off"),
        (70, "1.2 is the oldest"),
        (112, "no certificate for this host"),
        (80, "INTERNAL_ERROR"),
    ],
)
def test_each_alert_of_a_handshake_has_its_reason(make: Make, description: int, said: str) -> None:
    with Receiver(_alert(description)) as receiver:
        reply = make().send(outbound(f"https://127.0.0.1:{receiver.port}/"))

    assert (reply.failure, said in reply.detail) == (Failure.TLS, True), reply.detail


# What is accepted


def _encrypted(key: str) -> str:
    private: t.Any = serialization.load_pem_private_key(key.encode(), None)
    return private.private_bytes(  # type: ignore[no-any-return]
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"word"),
    ).decode()


def test_a_certificate_is_refused_with_what_is_wrong(authority: Authority) -> None:
    certificate, key = authority.client()
    old = authority.client(expired=True)
    server = authority.client(usage=ExtendedKeyUsageOID.SERVER_AUTH)
    wrong: dict[str, tuple[str, str]] = {
        "does not belong": (certificate, authority.client()[1]),
        "has expired on": old,
        "not made for clients": server,
        "is encrypted": (certificate, _encrypted(key)),
        "The key cannot be read": (certificate, "S3cret"),
        "key cannot be read. Give PEM": (certificate, certificate),
        "certificate cannot be read": ("S3cret", key),
        "certificate cannot be read. Give": (key, key),
        "more than 65536": (certificate + "S3cret" * 20_000, key),
    }
    for said, given in wrong.items():
        with pytest.raises(CertificateError, match=said) as caught:
            parse_client_certificate(*given, "h", NOW)
        assert "S3cret" not in str(caught.value)
    for good in ((certificate, key), authority.client(usage=ExtendedKeyUsageOID.CLIENT_AUTH)):
        assert parse_client_certificate(*good, "h", NOW).subject == "CN=sender"
    both = certificate + key
    assert parse_client_certificate(both, both, "h", NOW) == parse_client_certificate(
        certificate, key, "h", NOW
    )


def test_neither_repr_nor_disk_has_the_key(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    load = ssl.SSLContext.load_cert_chain

    def look(context: ssl.SSLContext, path: str, *args: t.Any, **more: t.Any) -> None:
        assert os.stat(path).st_mode & 0o077 == 0
        written.append(Path(path).read_text())
        load(context, path, *args, **more)
        written.append(path)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", look)
    identity = of(authority)

    assert "PRIVATE" not in repr(identity) + repr(showing("", identity))
    assert "ENCRYPTED PRIVATE KEY" in written[0]
    assert identity.key not in written[0]
    assert not os.path.exists(written[1])


# What of it is missing on our side


def test_a_certificate_that_we_cannot_load_is_our_fault_until_we_can(
    make: Make, authority: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    transport = make(verify=authority.path)
    with Receiver(ok(), tls=authority.context("127.0.0.1")) as receiver:
        outbound = showing(receiver.url(), of(authority))
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))  # no place for the key's file
        reply = transport.send(outbound)

        assert (reply.failure, reply.is_ours) == (Failure.TLS, True)
        assert "gone" in reply.log
        assert "gone" not in reply.detail
        assert receiver.requests == []

        monkeypatch.undo()
        assert transport.send(outbound).failure is None


def test_a_bundle_that_is_gone_at_the_first_request_is_our_fault_until_it_is_there(
    make: Make, authority: Authority, tmp_path: Path
) -> None:
    bundle = tmp_path / "authorities.pem"
    transport = make(bundles=[str(bundle)])
    with Receiver(ok(), tls=authority.context("127.0.0.1")) as receiver:
        reply = transport.send(outbound(receiver.url()))
        assert (reply.failure, reply.is_ours) == (Failure.TLS, True)

        bundle.write_bytes(Path(authority.path).read_bytes())
        assert transport.send(outbound(receiver.url())).failure is None
