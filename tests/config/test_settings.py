"""Settings: defaults, checks, and messages that say what is accepted."""

from __future__ import annotations

import dataclasses
import typing as t
from datetime import timedelta
from ipaddress import ip_network

import pytest

from flask_webhooks import ConfigurationError
from flask_webhooks.config import Settings, slips
from flask_webhooks.health import Breaker
from flask_webhooks.retry import STANDARD


def test_the_defaults_are_those_of_the_documentation() -> None:
    settings = Settings.read({})

    assert settings.catalog == ("webhooks.yaml",)
    assert settings.environment == "staging"
    assert settings.redis_url is None
    assert (settings.queue, settings.url_prefix) == ("webhooks", "/webhooks")
    assert settings.retry == STANDARD
    assert settings.timeout == (5.0, 15.0)
    assert (settings.connection_lifetime, settings.connection_idle) == (60.0, 30.0)
    assert (settings.allow_http, settings.allowed_networks) == (False, ())
    assert (settings.concurrency, settings.subscription_concurrency) == (32, 4)
    assert settings.breaker == Breaker()
    assert settings.disable_after == (20, timedelta(days=3))
    assert settings.enabled
    assert (settings.response_limit, settings.payload_limit) == (16_384, 262_144)
    assert settings.retention == timedelta(days=30)


@pytest.mark.parametrize(
    ("key", "value", "read"),
    [
        ("CATALOG", ["a.yaml", "pkg:b.yaml"], ("a.yaml", "pkg:b.yaml")),
        ("ENVIRONMENT", "production", "production"),
        ("REDIS_URL", "embedded", None),
        ("REDIS_URL", "rediss://x/1", "rediss://x/1"),
        ("RETRY", "none", ()),
        ("RETRY", [1, 60], (1.0, 60.0)),
        ("TIMEOUT", (1, 2.5), (1.0, 2.5)),
        ("CONNECTION_LIFETIME", timedelta(minutes=2), 120.0),
        ("CONNECTION_IDLE", 10, 10.0),
        ("ALLOWED_NETWORKS", ["127.0.0.0/8", "::1"], (ip_network("127.0.0.0/8"), ip_network("::1"))),
        ("ALLOWED_PORTS", [444, "8000-8100", "9"], (range(444, 445), range(8000, 8101), range(9, 10))),
        ("BREAKER", False, None),
        ("BREAKER", {"pause": 5}, Breaker(pause=5.0)),
        ("DISABLE_AFTER", None, None),
        ("DISABLE_AFTER", (5, 60), (5, timedelta(minutes=1))),
        ("RETENTION", 86_400, timedelta(days=1)),
    ],
)
def test_values_are_read(key: str, value: t.Any, read: t.Any) -> None:
    assert getattr(Settings.read({f"WEBHOOKS_{key}": value}), key.lower()) == read


def test_a_callable_environment_is_kept() -> None:
    def choose(event: str, data: t.Any, owner: str) -> str:
        return "production"

    assert Settings.read({"WEBHOOKS_ENVIRONMENT": choose}).environment is choose


@pytest.mark.parametrize(
    ("key", "value", "accepted"),
    [
        ("CATALOG", [], "a path"),
        ("ENVIRONMENT", "prod", '"staging"'),
        ("REDIS_URL", "localhost:6379", "redis://"),
        ("QUEUE", "", "name"),
        ("URL_PREFIX", "webhooks", '"/webhooks"'),
        ("URL_PREFIX", "/webhooks/", "without a slash"),
        ("RETRY", "often", '"standard"'),
        ("RETRY", [-1], "seconds"),
        ("TIMEOUT", 15, "two numbers"),
        ("TIMEOUT", (15, 5), "not larger"),
        ("CONNECTION_LIFETIME", 0, "seconds above 0"),
        ("CONNECTION_IDLE", "30s", "seconds above 0"),
        ("CONNECTION_IDLE", float("nan"), "seconds above 0"),
        ("ALLOW_HTTP", "yes", "True or False"),
        ("ALLOWED_NETWORKS", "10.0.0.0/8", "a list"),
        ("ALLOWED_NETWORKS", ["10.0.0.1/8"], "a list"),
        ("ALLOWED_PORTS", 444, "a list of ports"),
        ("ALLOWED_PORTS", "444,445", "a list of ports"),
        ("ALLOWED_PORTS", {444: 445}, "a list of ports"),
        ("ALLOWED_PORTS", [0], "from 1 to 65535"),
        ("ALLOWED_PORTS", [65536], "from 1 to 65535"),
        ("ALLOWED_PORTS", [True], "a list of ports"),
        ("ALLOWED_PORTS", [444.5], "a list of ports"),
        ("ALLOWED_PORTS", ["https"], "a list of ports"),
        ("ALLOWED_PORTS", ["8100-8000"], "ranges"),
        ("ALLOWED_PORTS", ["8000-"], "ranges"),
        ("ALLOWED_PORTS", ["-8000"], "ranges"),
        ("ALLOWED_PORTS", ["²-³"], "ranges"),
        ("CONCURRENCY", 0, "whole number"),
        ("CONCURRENCY", True, "whole number"),
        ("SUBSCRIPTION_CONCURRENCY", 2.5, "whole number"),
        ("BREAKER", {"pauze": 5}, "pause"),
        ("BREAKER", {"pause": -5}, "pause"),
        ("DISABLE_AFTER", 20, "failures in a row"),
        ("ENABLED", 1, "True or False"),
        ("RESPONSE_LIMIT", "16k", "bytes"),
        ("RESPONSE_LIMIT", 1_048_577, "from 1 to 1048576, in bytes"),
        ("PAYLOAD_LIMIT", -1, "bytes"),
        ("RETENTION", "30 days", "timedelta"),
        ("BULK", "maybe", '"capture"'),
        ("ON_ERROR", "ignore", '"record"'),
        ("RECORD", "none", '"listened"'),
    ],
)
def test_a_wrong_value_is_refused_with_key_value_and_remedy(key: str, value: t.Any, accepted: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.read({f"WEBHOOKS_{key}": value})

    message = str(caught.value)
    assert message.startswith(f"WEBHOOKS_{key} is {value!r}. Accepted: ")
    assert accepted in message


def test_a_mebibyte_of_an_answer_may_be_kept() -> None:
    assert Settings.read({"WEBHOOKS_RESPONSE_LIMIT": 1_048_576}).response_limit == 1_048_576


@pytest.mark.parametrize(
    ("key", "near"), [("TIMOUT", "TIMEOUT"), ("CATALOGUE", "CATALOG"), ("REDIS", "REDIS_URL")]
)
def test_a_misspelt_key_is_logged_with_the_nearest(key: str, near: str) -> None:
    [told] = slips([f"WEBHOOKS_{key}"])

    assert told.endswith(f"WEBHOOKS_{key} is not a setting of Flask-Webhooks. Did you mean WEBHOOKS_{near}?")


def test_other_keys_are_the_hosts() -> None:
    config = {
        "WEBHOOKS_STRIPE_SECRET": "whsec",
        "WEBHOOKS_GITHUB_TOKEN": "t",
        "WEBHOOKS_ENDPOINT": "https://x",
    }

    assert Settings.read(config) == Settings()
    assert list(slips([*config, "WEBHOOKS_TIMEOUT", "TIMOUT"])) == []


@pytest.mark.parametrize("url", [None, "http://proxy", "http://proxy:3128", "http://name:word@[::1]:3128/"])
def test_an_egress_proxy_is_an_http_proxy(url: str | None) -> None:
    assert Settings.read({"WEBHOOKS_EGRESS_PROXY": url}).egress_proxy == url


@pytest.mark.parametrize(
    "url",
    [
        "https://name:word@proxy:3128",
        "socks5://name:word@proxy:1080",
        "proxy:3128",
        "http://",
        "http://name:word@proxy:port",
        "http://proxy:0",
        "http://proxy/path",
        "",
        3128,
    ],
)
def test_any_other_proxy_is_refused_at_the_start_and_its_password_not_shown(url: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^WEBHOOKS_EGRESS_PROXY .* http://host:port") as caught:
        Settings.read({"WEBHOOKS_EGRESS_PROXY": url})

    assert "word" not in str(caught.value)


SECRETS = {
    "WEBHOOKS_REDIS_URL": "redis://:S3cret@h:1/0",
    "WEBHOOKS_ENCRYPTION_KEYS": ["S3cret"],
    "WEBHOOKS_EGRESS_PROXY": "http://name:S3cret@proxy:3128",
}


def test_a_repr_shows_no_secret() -> None:
    settings = Settings.read(SECRETS)

    assert "S3cret" in str(dataclasses.astuple(settings))
    assert "S3cret" not in repr(settings)


def test_a_wrong_key_is_not_shown() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.read({"WEBHOOKS_ENCRYPTION_KEYS": [b"s3cr3t", 42]})

    assert "s3cr3t" not in str(caught.value)


def test_other_keys_are_none_of_our_business() -> None:
    assert Settings.read({"SECRET_KEY": "x", "WEBHOOK_URL": "y"}) == Settings()
