"""The folders of the embedded Valkey: one that another user could write to is refused."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
import typing as t
from pathlib import Path

import pytest
import redis

from flask_webhooks.checks import Level, check_redis
from flask_webhooks.errors import QueueError
from flask_webhooks.queue import Bell, Embedded

NOBODY = 65_534


@pytest.fixture
def far(tmp_path: Path) -> Path:
    """An instance folder whose path is too long for a socket."""
    return tmp_path / ("deep" * 30) / "webhooks"


@pytest.fixture
def short() -> t.Iterator[Path]:
    """A folder with a path that leaves room for a socket's."""
    with tempfile.TemporaryDirectory(prefix="w", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def shared(short: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, writable by everybody and sticky, as /tmp is."""
    folder = short / "t"
    folder.mkdir()
    folder.chmod(0o1777)
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    return folder


def _socket(embedded: Embedded) -> Path:
    return Path(embedded.url.removeprefix("unix://"))


def _stop(embedded: Embedded) -> None:
    redis.Redis.from_url(embedded.url).shutdown(nosave=True)


def _foreign(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    os.chown(folder, NOBODY, NOBODY)


def _link(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(folder.parent / "elsewhere")


def _dangling(folder: Path) -> None:
    folder.symlink_to(folder.parent / "nowhere")


def _of_mode(mode: int) -> t.Callable[[Path], None]:
    def make(folder: Path) -> None:
        folder.mkdir()
        folder.chmod(mode)

    return make


MADE_BY_OTHERS = [
    pytest.param(_foreign, "belongs to the user id 65534", id="another user's"),
    pytest.param(_link, "is a symbolic link", id="link"),
    pytest.param(_dangling, "is a symbolic link", id="dangling link"),
    pytest.param(lambda folder: folder.write_text(""), "is not a directory", id="file"),
    pytest.param(_of_mode(0o770), "0770", id="of the group"),
    pytest.param(_of_mode(0o707), "0707", id="everybody's"),
    pytest.param(_of_mode(0o1777), "1777", id="sticky"),
]


@pytest.mark.parametrize(
    ("make", "fault"), [*MADE_BY_OTHERS, pytest.param(_of_mode(0o750), "0750", id="readable")]
)
def test_a_fallback_folder_of_another_user_is_refused(
    far: Path, shared: Path, make: t.Callable[[Path], None], fault: str
) -> None:
    embedded = Embedded(far)
    assert _socket(embedded).parent.parent == shared
    make(_socket(embedded).parent)
    with pytest.raises(QueueError) as caught:
        embedded.start()

    told = str(caught.value)
    assert str(_socket(embedded).parent) in told
    assert fault in told
    assert "WEBHOOKS_REDIS_URL" in told
    assert "\n" not in told


@pytest.mark.parametrize(("make", "fault"), MADE_BY_OTHERS)
def test_so_is_such_a_folder_in_the_instance_folder(
    tmp_path: Path, make: t.Callable[[Path], None], fault: str
) -> None:
    make(tmp_path / "webhooks")
    with pytest.raises(QueueError, match=fault):
        Embedded(tmp_path / "webhooks").start()


@pytest.mark.parametrize("make", [_foreign, _of_mode(0o777)], ids=["another user's", "everybody's"])
def test_no_client_talks_to_a_server_that_stands_in_one(
    far: Path, shared: Path, make: t.Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    """The web process never starts the server: it must not trust the one that it finds either."""
    embedded = Embedded(far)
    embedded.start()
    try:
        folder = _socket(embedded).parent
        moved = folder.rename(folder.parent / "real")
        make(folder)
        (folder / "valkey.sock").symlink_to(moved / "valkey.sock")  # answers
        bell = Bell(None, embedded, "webhooks", "tests.served")

        assert not bell.ring()
        assert "bell.unreachable" in caplog.text
        with pytest.raises(QueueError, match=r"could run code"):
            bell.depth()
        [finding] = check_redis(bell, is_embedded=True).findings
        assert (finding.level, "could run code" in finding.message) == (Level.ERROR, True)
        assert not bell.is_rung()
        bell.clear()
        embedded.stop_if_last()
        assert redis.Redis(unix_socket_path=str(moved / "valkey.sock")).ping()
    finally:
        redis.Redis(unix_socket_path=str(moved / "valkey.sock")).shutdown(nosave=True)


@pytest.mark.parametrize("make", [_foreign, _of_mode(0o777)], ids=["another user's", "everybody's"])
def test_an_instance_folder_of_others_is_refused(tmp_path: Path, make: t.Callable[[Path], None]) -> None:
    """Whoever has it can put another folder in the place of ours, between our look and our connection."""
    make(tmp_path / "instance")
    with pytest.raises(QueueError, match="Make the instance folder this user's") as caught:
        Embedded(tmp_path / "instance" / "webhooks").start()

    assert "Others can replace" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_place_where_others_can_replace_the_folder_is_refused(far: Path, shared: Path) -> None:
    shared.chmod(0o777)
    with pytest.raises(QueueError, match="no sticky bit"):
        Embedded(far).start()


def test_a_fallback_folder_is_made_for_this_user_alone(far: Path, shared: Path) -> None:
    embedded = Embedded(far)
    embedded.start()
    _stop(embedded)

    assert stat.S_IMODE(_socket(embedded).parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(embedded.folder.stat().st_mode) == 0o700


def test_the_runtime_directory_comes_first(
    far: Path, shared: Path, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = short / "run"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))

    assert _socket(Embedded(far)).parent.parent == runtime


@pytest.mark.parametrize(
    "make",
    [_foreign, _link, _of_mode(0o755), lambda folder: None],
    ids=["another user's", "link", "open", "missing"],
)
def test_a_runtime_directory_that_is_not_ours_is_left_alone(
    far: Path, shared: Path, short: Path, monkeypatch: pytest.MonkeyPatch, make: t.Callable[[Path], None]
) -> None:
    make(short / "run")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short / "run"))

    assert _socket(Embedded(far)).parent.parent == shared


def test_no_folder_with_a_path_short_enough_is_one_sentence(
    far: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("long" * 30)))
    with pytest.raises(QueueError, match=r"longer than a socket's may be.* TMPDIR"):
        Embedded(far).start()


def test_a_link_in_place_of_the_lock_is_neither_followed_nor_truncated(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("all of it")
    folder = tmp_path / "webhooks"
    folder.mkdir(mode=0o700)
    (folder / "valkey.lock").symlink_to(precious)
    embedded = Embedded(folder)
    with pytest.raises(QueueError, match=r"valkey\.lock"):
        embedded.start()
    embedded.stop_if_last()

    assert precious.read_text() == "all of it"


def test_a_lock_that_is_there_is_kept_as_it_is(tmp_path: Path) -> None:
    embedded = Embedded(tmp_path / "webhooks")
    embedded.folder.mkdir(mode=0o700)
    (embedded.folder / "valkey.lock").write_text("kept")
    embedded.start()
    _stop(embedded)

    assert (embedded.folder / "valkey.lock").read_text() == "kept"


def test_an_instance_folder_below_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "instance").write_text("")
    with pytest.raises(QueueError) as caught:
        Embedded(tmp_path / "instance" / "webhooks").start()

    assert "\n" not in str(caught.value)
    assert str(tmp_path / "instance") in str(caught.value)
    assert "WEBHOOKS_REDIS_URL" in str(caught.value)


def test_an_instance_folder_that_cannot_be_written_is_one_sentence_of_the_worker(short: Path) -> None:
    """Not sixty lines. Tests may run as root, to whom everything is writable: the worker does not."""
    app = f"""
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from flask_webhooks import Webhooks
app = Flask(__name__, instance_path={str(short / "instance")!r})
app.config.update(SECRET_KEY="x", SQLALCHEMY_DATABASE_URI="sqlite://")
db = SQLAlchemy(app)
Webhooks(app, db)
with app.app_context():
    db.create_all()
import os
os.setuid({NOBODY if os.getuid() == 0 else os.getuid()})
"""
    short.chmod(0o755)
    (short / "instance").mkdir(mode=0o555)
    (short / "app.py").write_text(app)
    (short / "webhooks.yaml").write_text(
        "version: 1\nchannels: {reports: {events: {ready: {message: Ready.}}}}\n"
    )
    words = [sys.executable, "-m", "flask", "webhooks", "worker"]
    done = subprocess.run(words, cwd=short, capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    told = f"Error: The embedded Valkey cannot use {short}/instance/webhooks: Permission denied."
    assert done.stderr.startswith(told)
