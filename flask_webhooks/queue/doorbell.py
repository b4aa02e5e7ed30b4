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
"""Seconds without another try after Redis could not be reached."""
FLAG_LIFE = 10
"""Seconds after which a waiting wake-up is taken for lost and another is sent."""
JOB_TIMEOUT = 900
"""Seconds after which RQ breaks a job off: far more than it takes with any sane `WEBHOOKS_TIMEOUT`."""
LOOK_BACK = 20
"""Jobs that failed last and are looked at for what the matter was."""
JOB_LIFE = 600
"""Seconds that a wake-up may wait in the queue; later ones say the same."""


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
        """Enqueue one job unless one waits already; return whether Redis could be reached. Raises nothing.

        It is rung after a commit, in a request whose answer may be all that somebody ever sees of a secret: whatever
        the matter is with Redis, its client or its folder, workers look at the database by themselves.
        """
        if time.monotonic() < self._quiet_until:
            return False
        try:
            if self._url is None and not self._embedded.is_started():
                return False  # no worker has started it yet, and the first that does looks at the database
            client = self._connection()
            if client.set(self._flag, 1, nx=True, ex=FLAG_LIFE):
                self._enqueue(client)
        except Exception as error:
            self._quiet_until = time.monotonic() + QUIET
            if not self._is_trouble:  # said once, not at every commit
                logger.warning("bell.unreachable", extra={"reason": reason_of(error, self.url)})
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
        with contextlib.suppress(Exception):
            if time.monotonic() >= self._quiet_until:
                self._connection().delete(self._flag)

    def wake_at(self, moment: t.Any) -> None:
        """Have RQ's scheduler ring at a time, for stock workers that run with one; nothing without Redis."""
        with contextlib.suppress(Exception):
            queue = Queue(self._name, connection=self._connection())
            # It must outlive its moment. And it must not have the id of the job that asks for it, perhaps woken so
            # itself: RQ lets go of that when it is done. One a minute is enough.
            settings = {**self._job(), "ttl": None}
            name = f"{self._name}-due-{int(moment.timestamp()) // 60}"
            queue.enqueue_at(moment, JOB, self._app_path, job_id=name, **settings)

    def is_rung(self) -> bool:
        """Say whether somebody has rung since the last `clear`; False where Redis cannot be reached."""
        with contextlib.suppress(Exception):
            return bool(self._connection().exists(self._flag))
        return False

    def depth(self) -> int:
        """Return how many jobs wait in the queue.

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
        """Return why the embedded server's folder is not used; None if it is, or if Redis is elsewhere."""
        try:
            if self._url is None:
                self._embedded.verify()
        except (QueueError, OSError) as error:
            return str(error)
        return None

    def unreadable(self) -> int:
        """Return how many of the last jobs failed because a worker could not read them, such as one with JSON.

        A stock `rq worker` that was started with another serializer tells nobody so but in its own log.
        """
        found = 0
        with contextlib.suppress(Exception):  # that Redis is away is told by `depth`
            client = self._connection()
            for key in FailedJobRegistry(self._name, connection=client).get_job_ids(-LOOK_BACK, -1):
                result = Job.fetch(key, connection=client).latest_result()
                found += result is not None and "DeserializationError" in (result.exc_string or "")
        return found

    def _enqueue(self, client: redis.Redis) -> None:
        Queue(self._name, connection=client).enqueue(JOB, self._app_path, **self._job())

    @staticmethod
    def _job() -> dict[str, t.Any]:
        # failure_ttl is a year by default; result_ttl=0 would cost RQ half its speed. The timeout is only a backstop:
        # the job keeps its own time, and attempts have a deadline.
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
