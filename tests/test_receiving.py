from __future__ import annotations

import base64
import hashlib
import hmac
import json
import pickle
from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask, request
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

from flask_webhooks.errors import SecretError, VerificationError
from flask_webhooks.receiving import verify
from flask_webhooks.signing import generate, headers

ID = "0196f2a4-7c1e-7000-8000-000000000001"
NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
BODY = json.dumps({"event": "invoices.paid", "data": {"client": "Ama ☕"}}, ensure_ascii=False).encode()
SECRET, OTHER, PAIR = generate(), generate(), generate("v1a")


def sent(body=BODY, secrets=(SECRET,), *, at=NOW, **changes):
    """The request of a delivery, with headers changed or (None) left out; `_` stands for `-`."""
    signed = headers(ID, body, at, secrets)
    for name, value in changes.items():
        signed[name.replace("_", "-")] = value
    given = {name: value for name, value in signed.items() if value is not None}
    return Request(EnvironBuilder(method="POST", data=body, headers=given).get_environ())


def test_returns_the_body_of_a_verified_request():
    assert verify(sent(), SECRET.text, now=NOW) == {"event": "invoices.paid", "data": {"client": "Ama ☕"}}


def test_an_ed25519_signature_verifies_with_the_public_key():
    assert verify(sent(secrets=[PAIR]), PAIR.public, now=NOW)["event"] == "invoices.paid"


@pytest.mark.parametrize(
    ("signed_with", "known"),
    [
        ([SECRET, OTHER], [SECRET.text]),
        ([SECRET, OTHER], [OTHER.text]),
        ([SECRET], [OTHER.text, SECRET.text]),
        ([SECRET, PAIR], [PAIR.public]),
        ([SECRET, PAIR], [SECRET.text]),
        ([PAIR], (OTHER.text, PAIR.public)),
    ],
    ids=["first", "second", "rotated here", "pair of both", "symmetric of both", "mixed"],
)
def test_one_match_is_enough_while_secrets_overlap(signed_with, known):
    assert verify(sent(secrets=signed_with), known, now=NOW)


@pytest.mark.parametrize(
    ("signed_with", "known"),
    [
        ([SECRET], OTHER.text),
        ([PAIR], SECRET.text),
        ([SECRET], PAIR.public),
        ([PAIR], generate("v1a").public),
    ],
    ids=["other secret", "pair for symmetric", "symmetric for pair", "other pair"],
)
def test_another_secret_does_not_verify(signed_with, known):
    with pytest.raises(VerificationError, match=r"^webhook-signature: none"):
        verify(sent(secrets=signed_with), known, now=NOW)


@pytest.mark.parametrize("name", ["webhook_id", "webhook_timestamp", "webhook_signature"])
@pytest.mark.parametrize("value", [None, ""], ids=["missing", "empty"])
def test_a_missing_header_is_named(name, value):
    with pytest.raises(VerificationError, match=f"^{name.replace('_', '-')}: the header is missing"):
        verify(sent(**{name: value}), SECRET.text, now=NOW)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"webhook_id": ID[:-1] + "2"}, "webhook-signature"),
        ({"webhook_timestamp": str(int(NOW.timestamp()) + 1)}, "webhook-signature"),
        ({"webhook_id": "a.b"}, "webhook-id"),
        ({"webhook_timestamp": "soon"}, "webhook-timestamp"),
        ({"webhook_timestamp": "1772366400.5"}, "webhook-timestamp"),
        ({"webhook_timestamp": "-1"}, "webhook-timestamp"),
        ({"webhook_timestamp": "9" * 12}, "webhook-timestamp"),
        ({"webhook_signature": "v1"}, "webhook-signature"),
        ({"webhook_signature": "v1,"}, "webhook-signature"),
        ({"webhook_signature": "v1,%%%"}, "webhook-signature"),
        ({"webhook_signature": "v1a,AAAA v1,AAAA v2,AAAA"}, "webhook-signature"),
    ],
    ids=lambda value: str(value),
)
def test_a_changed_header_is_refused_and_named(changes, part):
    with pytest.raises(VerificationError, match=f"^{part}: "):
        verify(sent(**changes), [SECRET.text, PAIR.public], now=NOW)


@pytest.mark.parametrize(
    ("signed_with", "known"), [(SECRET, SECRET.text), (PAIR, PAIR.public)], ids=["v1", "v1a"]
)
def test_a_signature_under_another_name_does_not_count(signed_with, known):
    kind, _, digits = headers(ID, BODY, NOW, [signed_with])["webhook-signature"].partition(",")
    other = {"v1": "v1a", "v1a": "v1"}[kind]

    with pytest.raises(VerificationError, match=r"^webhook-signature: none"):
        verify(sent(webhook_signature=f"{other},{digits}"), known, now=NOW)


def test_no_tolerance_is_wide_enough_for_a_time_beyond_all_dates():
    with pytest.raises(VerificationError, match=r"^webhook-timestamp: not a whole number"):
        verify(sent(webhook_timestamp="9" * 12), SECRET.text, tolerance=float("inf"), now=NOW)


def test_unknown_and_broken_signatures_with_a_good_one_do_no_harm():
    good = headers(ID, BODY, NOW, [SECRET])["webhook-signature"]

    assert verify(sent(webhook_signature=f"v9,AAAA broken v1,%% {good}"), SECRET.text, now=NOW)


def test_a_changed_body_is_refused():
    changed = sent()
    changed.get_data = lambda: BODY.replace(b"paid", b"sent")

    with pytest.raises(VerificationError, match=r"^webhook-signature: none .* before anything parses it"):
        verify(changed, SECRET.text, now=NOW)


@pytest.mark.parametrize(
    ("age", "tolerance", "said"),
    [
        (0, 300, None),
        (300, 300, None),
        (301, 300, "301 seconds old"),
        (-300, 300, None),
        (-301, 300, "301 seconds ahead"),
        # Beyond the fixed five minutes of the official library
        (3600, 7200, None),
        (11, 10, "11 seconds old"),
    ],
)
def test_a_timestamp_may_be_as_old_or_as_early_as_tolerated(age, tolerance, said):
    delivery = sent(at=NOW - timedelta(seconds=age))

    if said is None:
        assert verify(delivery, SECRET.text, tolerance=tolerance, now=NOW)
    else:
        with pytest.raises(VerificationError, match=f"^webhook-timestamp: {said}"):
            verify(delivery, SECRET.text, tolerance=tolerance, now=NOW)


@pytest.mark.parametrize(
    ("body", "said"),
    [(b"[1]", "a list and no object"), (b"{", "not JSON"), (b"", "not JSON"), (b"[" * 100_000, "not JSON")],
    ids=["list", "cut", "empty", "deep"],
)
def test_a_signed_body_that_is_no_object_is_refused(body, said):
    with pytest.raises(VerificationError, match=f"^body: signed by the sender, but {said}"):
        verify(sent(body), SECRET.text, now=NOW)


@pytest.mark.parametrize("known", [SECRET.text, PAIR.public], ids=["v1", "v1a"])
def test_a_body_in_another_encoding_is_refused(known):
    with pytest.raises(VerificationError, match=r"^body: not UTF-8"):
        verify(sent(b'{"name": "caf\xe9"}', [SECRET, PAIR]), known, now=NOW)


@pytest.mark.parametrize(
    "secret",
    ["", [], "whsec_short", [SECRET.text, "x"], "whpk_AAAA", PAIR.text],
    ids=["empty", "none", "short", "one-of-two", "short-public", "private"],
)
def test_a_malformed_secret_is_the_receivers_own_mistake(secret):
    with pytest.raises(SecretError):
        verify(sent(), secret, now=NOW)


def test_serves_a_view_with_the_clock_and_leaves_the_body_readable():
    app = Flask(__name__)

    @app.post("/hooks")
    def hooks():
        return {"event": verify(request, SECRET.text)["event"], "again": request.json["event"]}

    now = datetime.now(UTC)
    answer = app.test_client().post(
        "/hooks", data=BODY, headers=headers(ID, BODY, now, [SECRET]), content_type="application/json"
    )

    assert answer.json == {"event": "invoices.paid", "again": "invoices.paid"}


def test_serves_anything_with_headers_and_a_body():
    class Plain:
        headers = {name.title(): value for name, value in headers(ID, BODY, NOW, [SECRET]).items()}

        def get_data(self):
            return BODY

    assert verify(Plain(), SECRET.text, now=NOW)


def test_accepts_a_signature_made_without_any_of_our_code():
    key, timestamp = bytes(range(24)), int(NOW.timestamp())
    mac = hmac.new(key, b"msg_1.%d.{}" % timestamp, hashlib.sha256).digest()

    class Foreign:
        headers = {
            "webhook-id": "msg_1",
            "webhook-timestamp": str(timestamp),
            "webhook-signature": "v1," + base64.b64encode(mac).decode(),
        }

        def get_data(self):
            return b"{}"

    assert verify(Foreign(), "whsec_" + base64.b64encode(key).decode(), now=NOW) == {}


@given(
    st.fixed_dictionaries(
        {
            "webhook-id": st.text(),
            "webhook-timestamp": st.text() | st.just(str(int(NOW.timestamp()))),
            "webhook-signature": st.text()
            | st.from_regex(r"(v1a?,[A-Za-z0-9+/=]{0,100} ?){0,4}", fullmatch=True),
        }
    ),
    st.binary(),
)
def test_a_stranger_gets_nothing_but_a_refusal(forged, body):
    class Forged:
        headers = forged

        def get_data(self):
            return body

    with pytest.raises(VerificationError):
        verify(Forged(), [SECRET.text, PAIR.public], now=NOW)


TOLD = {
    "webhook_event": "invoices.paid",
    "webhook_occurred_at": "2026-03-01T11:59:59.000120+00:00",
    "webhook_sequence": "1772366399000120",
    "webhook_attempt": "3",
    "webhook_delivery": "0196f2a4-7c1e-7000-8000-0000000000d1",
    "webhook_trigger": "replay",
}


def test_returns_what_the_headers_tell():
    found = verify(sent(**TOLD), SECRET.text, now=NOW)

    assert found == json.loads(BODY)
    assert (found.id, found.event, found.delivery) == (ID, "invoices.paid", TOLD["webhook_delivery"])
    assert found.occurred_at == datetime(2026, 3, 1, 11, 59, 59, 120, tzinfo=UTC)
    assert (found.sequence, found.attempt, found.trigger) == (1772366399000120, 3, "replay")


@pytest.mark.parametrize(
    "told",
    [
        {},
        dict.fromkeys(TOLD, ""),
        {
            "webhook_occurred_at": "yesterday",
            "webhook_sequence": "²",
            "webhook_attempt": "9" * 5000,
        },
        {"webhook_occurred_at": "2026-03-01T11:59:59", "webhook_sequence": "-1", "webhook_attempt": "1.5"},
    ],
    ids=["none", "empty", "unreadable", "without zone"],
)
def test_what_another_sender_does_not_tell_is_none(told):
    given = {name: value.encode().decode("latin-1") for name, value in told.items()}

    found = verify(sent(**given), SECRET.text, now=NOW)

    assert found == json.loads(BODY)
    assert (found.event, found.occurred_at, found.sequence) == (None, None, None)
    assert (found.attempt, found.delivery, found.trigger) == (None, None, None)


def test_only_so_many_signatures_are_looked_at():
    good = headers(ID, BODY, NOW, [SECRET])["webhook-signature"]

    assert verify(sent(webhook_signature=" ".join(["v1,AAAA"] * 99 + [good])), SECRET.text, now=NOW)
    with pytest.raises(VerificationError, match=r"^webhook-signature: none"):
        verify(sent(webhook_signature=" ".join(["v1,AAAA"] * 100 + [good])), SECRET.text, now=NOW)


def test_what_is_returned_can_be_kept_like_any_dict():
    found = verify(sent(**TOLD), SECRET.text, now=NOW)

    again = pickle.loads(pickle.dumps(found))
    assert json.loads(json.dumps(found)) == again == found
    assert vars(again) == vars(found)


def test_an_id_beyond_ascii_is_refused():
    class Odd:
        headers = {**headers("0", BODY, NOW, [SECRET]), "webhook-id": "\ud800"}

        def get_data(self):
            return BODY

    with pytest.raises(VerificationError, match=r"^webhook-id: not ASCII"):
        verify(Odd(), SECRET.text, now=NOW)
