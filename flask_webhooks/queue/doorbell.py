"""The doorbell: one cheap command after a commit, and one job in the queue for any number of rings."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import queue
import sys
import threading
import time
import typing as t

import redis
from rq import Queue
from rq.job import Job
from rq.registry import FailedJobRegistry

from ..errors import QueueError
from .embedded import Embedded
from .redis_client import CONNECT_TIMEOUT, TALK_TIMEOUT, connect, reason_of, shown

__all__ = ["JOB", "Bell", "rung"]

logger = logging.getLogger("flask_webhooks.queue")

JOB = "flask_webhooks.jobs.deliver"
QUIET = 5.0
"""Seconds without a further attempt after Redis could not be reached."""
FLAG_LIFE = 10
"""Seconds after which a waiting wake-up counts as lost, and the next ring sends another."""
JOB_TIMEOUT = 900
"""Seconds after which RQ kills a job: far more than one takes with any reasonable `WEBHOOKS_TIMEOUT`."""
LOOK_BACK = 20
"""Number of the last failed jobs whose errors `unreadable` reads."""
JOB_LIFE = 600
"""Seconds after which a waiting job is dropped from the queue; any later one does the same work."""


class Bell:
    """Wakes a worker after a commit: so it must be cheap, and must never fail the request.

    :param url: None for the embedded server, which is used only once it runs.
    :param queue: name of the RQ queue.
    :param app_path: the import path of the app for a stock `rq worker` whose environment has no `FLASK_APP`.
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
        """The URL of the Redis server."""
        return self._url or self._embedded.url

    def ring(self) -> bool:
        """Enqueue one job unless one waits already; return whether Redis could be reached. Raises no exception.

        It runs after a commit, and the response of that request may show a secret which is never shown again. So no
        fault of Redis, its client or its folder may fail the request; workers poll the database by themselves.
        """
        if time.monotonic() < self._quiet_until:
            return False
        try:
            if self._url is None and not self._embedded.is_started():
                return (
                    False  # no worker has started the server yet; the one that does reads the database first
                )
            client = self._connection()
            if client.set(self._flag, 1, nx=True, ex=FLAG_LIFE):
                self._enqueue(client)
        except Exception as error:
            self._quiet_until = time.monotonic() + QUIET
            if not self._is_trouble:  # logged once, not at every commit
                logger.warning("bell.unreachable", extra={"reason": reason_of(error, self.url)})
            self._is_trouble = True
            return False
        self._is_trouble = False
        return True

    def ring_soon(self) -> None:
        """Ring from another thread: a request must not wait for Redis, which may be slow or unreachable.

        Calls before the thread has rung are one ring. If the process is killed before that, the delivery waits until a
        worker polls the database.
        """
        pid = os.getpid()
        # A different id comes from the parent, whose ringing thread the fork did not copy.
        if self._asked_in != pid:
            self._asked_in = pid
            if not _Ringer.ask(self):
                self._asked_in = 0
                self.ring()

    def ring_as_asked(self) -> None:
        """Ring, in the thread of `ring_soon`. A call of `ring_soon` from here on is a new ring."""
        self._asked_in = 0
        self.ring()

    def clear(self) -> None:
        """Delete the flag; called before a worker reads the database, so that a commit from now on rings again."""
        with contextlib.suppress(Exception):
            if time.monotonic() >= self._quiet_until:
                self._connection().delete(self._flag)

    def wake_at(self, moment: t.Any) -> None:
        """Have RQ's scheduler ring at a moment, for stock workers that run with one. Does nothing without Redis."""
        with contextlib.suppress(Exception):
            queue = Queue(self._name, connection=self._connection())
            # No ttl: the job must still exist at its moment. Its id must differ from that of the running job, which may
            # have been scheduled here too: RQ deletes that one when it ends. One job a minute is enough.
            settings = {**self._job(), "ttl": None}
            name = f"{self._name}-due-{int(moment.timestamp()) // 60}"
            queue.enqueue_at(moment, JOB, self._app_path, job_id=name, **settings)

    def is_rung(self) -> bool:
        """Whether there was a ring since the last `clear`; False if Redis cannot be reached."""
        with contextlib.suppress(Exception):
            return bool(self._connection().exists(self._flag))
        return False

    def depth(self) -> int:
        """Return the number of jobs in the queue.

        :raises QueueError: Redis cannot be reached.
        """
        try:
            return Queue(self._name, connection=self._connection()).count
        except QueueError:
            raise
        except Exception as error:
            reason = reason_of(error, self.url)
            raise QueueError(f"Redis at {shown(self.url)} cannot be reached: {reason}") from None

    def refusal(self) -> str | None:
        """Return why the embedded server's folder is refused; None if it is not, or if Redis has a URL."""
        try:
            if self._url is None:
                self._embedded.verify()
        except (QueueError, OSError) as error:
            return str(error)
        return None

    def unreadable(self) -> int:
        """Return how many of the last failed jobs a worker could not deserialise.

        A stock `rq worker` that was started with another serializer, such as JSON, reports that only in its own log.
        """
        found = 0
        with contextlib.suppress(Exception):  # `depth` reports that Redis is unreachable
            client = self._connection()
            for key in FailedJobRegistry(self._name, connection=client).get_job_ids(-LOOK_BACK, -1):
                result = Job.fetch(key, connection=client).latest_result()
                found += result is not None and "DeserializationError" in (result.exc_string or "")
        return found

    def _enqueue(self, client: redis.Redis) -> None:
        Queue(self._name, connection=client).enqueue(JOB, self._app_path, **self._job())

    @staticmethod
    def _job() -> dict[str, t.Any]:
        # failure_ttl is a year by default; result_ttl=0 would halve RQ's speed. The timeout is only a backstop: the
        # job limits its own time, and attempts have a deadline.
        return {"ttl": JOB_LIFE, "result_ttl": 60, "failure_ttl": 86_400, "job_timeout": JOB_TIMEOUT}

    def _connection(self) -> redis.Redis:
        if self._url is None:
            self._embedded.verify()
        if self._client is None or self._pid != os.getpid():
            self._client, self._pid = connect(self.url, patient=False), os.getpid()
            if self._url is None:
                atexit.register(self._embedded.stop_if_last)
        return self._client


class _Ringer:
    """The thread that rings: one for all apps of a process, started at the first ring, and again after a fork."""

    current: t.ClassVar[_Ringer | None] = None

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._asked: queue.SimpleQueue[Bell | threading.Event] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="webhooks-bell", daemon=True).start()
        atexit.register(self.finish, CONNECT_TIMEOUT + TALK_TIMEOUT)

    @classmethod
    def ask(cls, bell: Bell) -> bool:
        """Queue a bell to be rung. Return False if no thread can run: at the exit of a process, and in some uWSGI."""
        ringer = cls.current
        if ringer is None or ringer._pid != os.getpid():
            if not _has_threads():
                return False
            try:
                # Two threads may get here at once and start two ringers, which is harmless. A lock is not: a fork may
                # copy it while it is held.
                ringer = cls.current = cls()
            except RuntimeError:
                return False
        ringer._asked.put(bell)
        return True

    def finish(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds until all queued bells have been rung; return whether they were."""
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
                except Exception:  # the process has no other ringing thread: it must go on
                    logger.exception("bell.failed")
            else:
                asked.set()
            del asked  # do not keep an app alive while waiting for the next ring


def rung(timeout: float = 1.0) -> bool:
    """Wait up to `timeout` seconds until all queued bells of this process have been rung; return whether they were."""
    return _Ringer.current is None or _Ringer.current.finish(timeout)


def _has_threads() -> bool:
    """Whether a new thread would run: in uWSGI without `enable-threads` none does."""
    uwsgi = sys.modules.get("uwsgi")
    options = getattr(uwsgi, "opt", {})
    return uwsgi is None or bool(options.get("enable-threads") or options.get("threads"))
