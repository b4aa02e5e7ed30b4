"""Columns that events should not show: recognised by words in their names, and by their types."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from flask_webhooks.bindings.columns import is_sealed
from flask_webhooks.bindings.private import private_columns, sounds_private
from flask_webhooks.bindings.serializers import column_renderer

PRIVATE = """
    password password_hash _password passwd passwordHash user_password pwd pw_hash pwhash passphrase password_hint
    secret client_secret webhook_secret otp_secret temp_password credentials pin pin_hash user_pin so_pin user_pin_iv
    token access_token api_token accesstoken tokens auth_tokens refresh_token_hash userToken csrf_token jwt jti bearer
    api_key apikey apiKey private_key signing_key encryption_key hmac_key ssh_key session_key key_enc key_hash key_iv
    encrypted_value value_encrypted ssn_enc salt otp totp sms_otp totp_key otp_recovery_codes recovery_code backup_codes
    reset_code verification_code cvv magic_link
"""
PUBLIC = """
    token_id num_tokens token_type tokentype api_key_id token_in token_out total_tokens token_count tokenizer
    token_limit token_expires_at max_token_length has_password password_changed_at is_otp_enabled
    otp_enabled secret_count key
    public_key sort_key cache_key idempotency_key external_key foreign_key api_key_name pinned pinterest spinning
    opinion passenger passport compass secretary_id hash file_hash sha256 code zip_code postal_code country_code
    currency_code status_code error_code encrypted_at access_level session_id keyboard monkey_id basalt author username
"""


@pytest.mark.parametrize("name", PRIVATE.split())
def test_a_name_that_sounds_private(name: str) -> None:
    assert sounds_private(name)
    assert sounds_private(name, sa.String())


@pytest.mark.parametrize("name", PUBLIC.split())
def test_a_name_that_does_not(name: str) -> None:
    assert not sounds_private(name)


@pytest.mark.parametrize("kind", [sa.Boolean(), sa.DateTime(), sa.Enum("a", "b"), sa.Interval()])
def test_what_opens_nothing_is_not_private_whatever_it_is_called(kind: sa.types.TypeEngine[object]) -> None:
    assert not sounds_private("password", kind)


@pytest.mark.parametrize(
    ("name", "expected"), [("token", False), ("tokens_used", False), ("pin", True), ("otp", True)]
)
def test_numbers_are_private_where_codes_are_numbers(name: str, expected: bool) -> None:
    assert sounds_private(name, sa.Integer()) is expected


class Base(DeclarativeBase):
    """Root of the models."""


class EncryptedText(sa.TypeDecorator[str]):
    """As hosts write them."""

    impl = sa.Text
    cache_ok = True


class Notes(sa.TypeDecorator[str]):
    """Stands on one."""

    impl = EncryptedText
    cache_ok = True


class Person(Base):
    """Has columns that are private by type, by name in the table, and not at all."""

    __tablename__ = "private_person"
    id: Mapped[int] = mapped_column(primary_key=True)
    illness: Mapped[str] = mapped_column(EncryptedText)
    remarks: Mapped[str] = mapped_column(Notes)
    shibboleth: Mapped[str] = mapped_column("password_hash", sa.String(20))
    token_type: Mapped[str]
    photo: Mapped[bytes]


def test_columns_are_private_by_type_and_by_both_their_names() -> None:
    mapper: sa.orm.Mapper[Person] = sa.inspect(Person)

    assert private_columns(mapper, column_renderer(mapper).keys) == ["illness", "remarks", "shibboleth"]


@pytest.mark.filterwarnings("ignore:The 'EncryptedType' class:DeprecationWarning")
def test_types_of_sqlalchemy_utils() -> None:
    utils = pytest.importorskip("sqlalchemy_utils")

    assert is_sealed(utils.PasswordType.__new__(utils.PasswordType)), "without passlib it cannot be made"
    assert is_sealed(utils.StringEncryptedType(sa.String, "key"))
    assert is_sealed(utils.EncryptedType(sa.String, "key"))
    assert not is_sealed(utils.EmailType())
