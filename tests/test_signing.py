from __future__ import annotations

import base64
import hashlib
import hmac
import json
import pickle
import traceback
from datetime import UTC, datetime, timedelta, timezone

import pytest
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from flask_webhooks.errors import SecretError
from flask_webhooks.signing import PublicKey, Vault, content, derive_key, generate, headers, parse

ID = "0196f2a4-7c1e-7000-8000-000000000001"
BODY = '{"event":"invoices.paid","data":{"client":"Ama Owusu ☕"}}'.encode()


def b64(raw):
    return base64.b64encode(raw).decode()


def counting(size):
    """Bytes 0, 1, 2, …: a source of randomness that is none."""
    return bytes(range(size))


class TestSpecification:
    def test_the_example_of_the_reference_libraries(self):
        # standard-webhooks/libraries: the same vector in each of them
        secret = parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
        now = datetime.fromtimestamp(1614265330, UTC)

        signed = headers("msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}', now, [secret])

        assert signed == {
            "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "webhook-timestamp": "1614265330",
            "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        }

    def test_the_scheme_in_full(self):
        key = bytes(range(32))

        signed = headers(ID, BODY, datetime.fromtimestamp(1767225600, UTC), [parse("whsec_" + b64(key))])

        mac = hmac.new(key, f"{ID}.1767225600.".encode() + BODY, hashlib.sha256).digest()
        assert signed["webhook-signature"] == "v1," + b64(mac)


class TestHeaders:
    def test_the_official_library_verifies(self):
        secret = generate()

        signed = headers(ID, BODY, datetime.now(UTC), [secret])

        assert Webhook(secret.text).verify(BODY, signed)["event"] == "invoices.paid"

    def test_the_official_library_refuses_a_changed_body(self):
        secret = generate()
        signed = headers(ID, BODY, datetime.now(UTC), [secret])

        with pytest.raises(WebhookVerificationError):
            Webhook(secret.text).verify(BODY + b" ", signed)

    @given(st.binary(min_size=24, max_size=64), st.text(st.characters(codec="utf-8")))
    def test_the_official_library_verifies_any_text_with_any_key(self, key, text):
        secret = parse("whsec_" + b64(key))

        body = json.dumps(text, ensure_ascii=False)

        signed = headers(ID, body.encode(), datetime.now(UTC), [secret])

        assert Webhook(secret.text).verify(body, signed) == text

    def test_an_ed25519_signature_verifies_with_the_public_half(self):
        secret = generate("v1a")

        signed = headers(ID, BODY, datetime.now(UTC), [secret])

        kind, signature = signed["webhook-signature"].split(",")
        public = Ed25519PublicKey.from_public_bytes(base64.b64decode(secret.public.removeprefix("whpk_")))
        public.verify(base64.b64decode(signature), f"{ID}.{signed['webhook-timestamp']}.".encode() + BODY)
        assert kind == "v1a"

    def test_while_secrets_overlap_each_of_them_verifies(self):
        old, new, pair = generate(), generate(), generate("v1a")

        signed = headers(ID, BODY, datetime.now(UTC), [new, old, pair])

        kinds = [signature.split(",")[0] for signature in signed["webhook-signature"].split(" ")]
        assert kinds == ["v1", "v1", "v1a"]
        for secret in (old, new):
            Webhook(secret.text).verify(BODY, signed)

    @pytest.mark.parametrize("hours", [-11, 0, 5.5, 13])
    def test_an_instant_is_the_same_in_every_zone(self, hours):
        now = datetime(2026, 1, 1, tzinfo=UTC).astimezone(timezone(timedelta(hours=hours)))

        assert headers(ID, BODY, now, [generate()])["webhook-timestamp"] == "1767225600"

    def test_a_naive_time_is_refused(self):
        with pytest.raises(ValueError, match="has no zone"):
            headers(ID, BODY, datetime(2026, 1, 1), [generate()])  # noqa: DTZ001

    def test_nothing_is_sent_unsigned(self):
        with pytest.raises(SecretError, match="no secret to sign with"):
            headers(ID, BODY, datetime.now(UTC), [])

    def test_an_id_cannot_shift_the_boundary_to_the_timestamp(self):
        with pytest.raises(ValueError, match="full stop"):
            content("a.1767225600", 1, b"")


class TestGenerate:
    def test_a_symmetric_secret_has_32_random_bytes_by_default(self):
        assert generate(random=counting).text == "whsec_" + b64(bytes(range(32)))
        assert generate().text != generate().text

    @pytest.mark.parametrize("size", [24, 64])
    def test_takes_a_size(self, size):
        assert len(base64.b64decode(generate(size=size).text.removeprefix("whsec_"))) == size

    @pytest.mark.parametrize("size", [0, 23, 65])
    def test_refuses_a_size_outside_the_specification(self, size):
        with pytest.raises(SecretError):
            generate(size=size)

    def test_an_asymmetric_secret_is_a_pair(self):
        secret = generate("v1a", random=counting)

        expected = Ed25519PrivateKey.from_private_bytes(bytes(range(32))).public_key().public_bytes_raw()
        assert secret.text == "whsk_" + b64(bytes(range(32)))
        assert secret.public == "whpk_" + b64(expected)

    @pytest.mark.parametrize("kind", ["v1", "v1a"])
    def test_parse_reads_it_back(self, kind):
        secret = generate(kind)

        again = parse(secret.text)

        assert again == secret
        assert again.sign(b"x") == secret.sign(b"x")


class TestParse:
    @pytest.mark.parametrize(
        "text",
        [
            "",
            "whsec_",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "WHSEC_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            " whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n",
            "whsec_MfKQ9r8GKYqrTwjUPD8I LPZIo2LaLaSw",
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS",
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa--",
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSé",
            "whsec_" + b64(bytes(range(25)))[:-3] + "B==",
            "whsec_" + b64(bytes(23)),
            "whsec_" + b64(bytes(65)),
            "whsk_" + b64(bytes(31)),
            "whsk_" + b64(bytes(64)),
            "whpk_" + b64(bytes(32)),
        ],
    )
    def test_refuses_without_telling_the_secret(self, text):
        with pytest.raises(SecretError) as caught:
            parse(text)

        # 8 characters of the secret in a row would be telling
        said = "".join(traceback.format_exception(caught.value, chain=True)[-1:])
        digits = text.partition("_")[2]
        assert not any(digits[i : i + 8] in said for i in range(len(digits) - 8))
        assert caught.value.__context__ is None

    def test_takes_a_private_key_with_its_public_half(self):
        seed = bytes(range(32))
        public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()

        assert parse("whsk_" + b64(seed + public)) == parse("whsk_" + b64(seed))

    @pytest.mark.parametrize("kind", ["v1", "v1a"])
    def test_a_repr_shows_only_the_kind(self, kind):
        assert repr(generate(kind)) == f"<Secret {kind}>"

    def test_a_secret_does_not_travel_in_a_pickle(self):
        with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
            pickle.dumps(generate())


class TestPublicKey:
    def test_fits_only_what_its_other_half_signed(self):
        secret = generate("v1a")
        signature = base64.b64decode(secret.sign(b"body").removeprefix("v1a,"))

        assert PublicKey(secret.public).fits(signature, b"body")
        assert not PublicKey(secret.public).fits(signature, b"other")
        assert not PublicKey(secret.public).fits(b"short", b"body")
        assert not PublicKey(generate("v1a").public).fits(signature, b"body")

    @pytest.mark.parametrize("text", ["", "whpk_", "whpk_" + b64(bytes(31)), "whsk_" + b64(bytes(32))])
    def test_refuses(self, text):
        with pytest.raises(SecretError):
            PublicKey(text)


class TestVault:
    def test_opens_what_it_sealed(self):
        vault = Vault([Fernet.generate_key()])

        sealed = vault.seal("whsec_café")

        assert "whsec" not in sealed
        assert vault.open(sealed) == "whsec_café"
        assert vault.seal("whsec_café") != sealed

    def test_the_first_key_seals_and_all_open(self):
        old, new = Fernet.generate_key(), Fernet.generate_key().decode()
        sealed = Vault([old]).seal("secret")
        both = Vault([new, old])

        assert both.open(sealed) == "secret"
        assert Vault([new]).open(both.seal("secret")) == "secret"

    def test_rotating_frees_the_old_key(self):
        old, new = Fernet.generate_key(), Fernet.generate_key()
        sealed = Vault([old]).seal("secret")

        rotated = Vault([new, old]).rotate(sealed)

        assert Vault([new]).open(rotated) == "secret"

    @pytest.mark.parametrize("call", [Vault.open, Vault.rotate])
    @pytest.mark.parametrize(
        "damage",
        [lambda s: s[:-4], lambda s: "", lambda s: "é", lambda s: "A" + s[1:]],
        ids=["cut", "empty", "not ascii", "changed"],
    )
    def test_says_what_to_do_when_no_key_fits(self, call, damage):
        vault = Vault([Fernet.generate_key()])

        with pytest.raises(SecretError, match="WEBHOOKS_ENCRYPTION_KEYS"):
            call(vault, damage(vault.seal("secret")))
        with pytest.raises(SecretError, match="SECRET_KEY_FALLBACKS"):
            call(Vault([Fernet.generate_key()]), vault.seal("secret"))

    @pytest.mark.parametrize(
        "keys", [[], [""], ["short"], [b64(bytes(31))], ["é"], [Fernet.generate_key(), "x"]]
    )
    def test_refuses_what_is_no_key_without_telling_it(self, keys):
        with pytest.raises(SecretError) as caught:
            Vault(keys)

        assert "short" not in str(caught.value)
        assert caught.value.__context__ is None

    def test_a_vault_from_the_secret_key_is_the_same_in_every_process(self):
        sealed = Vault.from_secret_key("dev").seal("secret")

        assert Vault.from_secret_key(b"dev").open(sealed) == "secret"
        assert Vault([derive_key("dev")]).open(sealed) == "secret"
        with pytest.raises(SecretError):
            Vault.from_secret_key("other").open(sealed)

    def test_the_derived_key_never_changes(self):
        # A change of the label or the algorithm would make every stored secret unreadable.
        assert derive_key("dev") == "r-yU3KeSTHEx50YaX84csZo_as1i0zgPdQsMUlAPuMo="

    def test_old_secret_keys_still_open(self):
        sealed = Vault.from_secret_key("old").seal("secret")

        assert Vault.from_secret_key("new", ["old"]).open(sealed) == "secret"

    @pytest.mark.parametrize("empty", ["", b""], ids=repr)
    def test_refuses_an_empty_secret_key(self, empty):
        with pytest.raises(SecretError, match="Set SECRET_KEY"):
            Vault.from_secret_key(empty)

    def test_a_repr_shows_nothing(self):
        assert repr(Vault.from_secret_key("dev")) == "<Vault>"
