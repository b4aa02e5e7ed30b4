"""RQ's worker in this process. While Redis is away it waits, says so once, and is itself again when it is back."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
import typing as t

import redis
from rq import Queue, SimpleWorker
from rq.exceptions import StopRequested

from ..shutdown import ShutdownFlag
from .redis_client import connect, reason_of

__all__ = ["make", "work"]

logger = logging.getLogger("flask_webhooks.queue")

WAIT = 5
"""Seconds that RQ waits for a job at a time. A signal that comes just before the call of the system that waits does not
end it: about one in a thousand where other threads run."""


class _Worker(SimpleWorker):
    """RQ's worker without a fork: jobs share the process, its app and its connections to receivers."""

    stop: ShutdownFlag
    once: _OutageFilter
    is_leaving = False
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

    def heartbeat(self, timeout: int | None = None, pipeline: t.Any = None) -> None:
        """Called at each try to get a job: Redis is back when it succeeds, maybe empty. RQ itself would not notice."""
        super().heartbeat(timeout, pipeline)
        if pipeline is None and (self.once.is_trouble or not self.connection.hexists(self.key, "birth")):
            self.register_birth()
            self.set_state(self.get_state())
            self.once.end()

    def unsubscribe(self) -> None:
        """Called at the end. End the thread that listens to RQ's commands by a message, which it does not heed.

        RQ would unsubscribe on that thread's connection. Where it is just being made anew, for Redis was away, both do
        that, and each takes the other's replies: the thread dies of it, or this one waits for ever.
        """
        if self.pubsub_thread is None:
            return
        self.is_leaving = True
        self.pubsub_thread.stop()
        until = time.monotonic() + 1.0  # it may just wait for Redis, and ends by itself then
        with contextlib.suppress(redis.RedisError):
            while self.pubsub_thread.is_alive() and time.monotonic() < until:
                self.connection.publish(self.pubsub_channel_name, "")
                self.pubsub_thread.join(timeout=0.05)

    def handle_payload(self, message: t.Any) -> None:
        """Called for each of RQ's commands. One that is none must not end the thread that waits for the next."""
        if self.is_leaving:
            return
        try:
            super().handle_payload(message)  # type: ignore[no-untyped-call]
        except Exception as error:
            extra = {"worker": self.name, "reason": f"{type(error).__name__}: {error}"}
            logger.warning("command.failed", extra=extra)

    def _pubsub_exception_handler(self, exc: Exception, pubsub: t.Any, pubsub_thread: t.Any) -> None:
        """Called in the thread that listens. Whatever it was, such as an answer out of place: begin anew.

        RQ only does when the connection is lost. On the next one redis-py subscribes again.
        """
        if isinstance(exc, redis.ConnectionError) or not isinstance(exc, Exception):
            super()._pubsub_exception_handler(exc, pubsub, pubsub_thread)
            return
        if not isinstance(exc, redis.TimeoutError | redis.ResponseError):  # of those the working thread tells
            extra = {"worker": self.name, "reason": f"{type(exc).__name__}: {exc}"}
            logger.warning("commands.interrupted", extra=extra)
        if pubsub.connection is not None:
            pubsub.connection.disconnect()
        self.stop.wait(1.0)

    def register_birth(self) -> None:
        """Take the place of whoever had this name: it is ours, left by a cut connection or a killed container."""
        self.connection.delete(self.key)
        super().register_birth()  # type: ignore[no-untyped-call]


class _OutageFilter(logging.Filter):
    """Tells once that Redis is gone, in our words; RQ complains at every try, in two threads.

    Only the working thread's word counts, which also sees it come back: else the other's could be the last.
    """

    def __init__(self, worker: str, url: str) -> None:
        super().__init__()
        self._worker, self._url, self._thread = worker, url, threading.get_ident()
        self.is_trouble = False

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if "Redis" not in record.msg and not isinstance(error, redis.RedisError):
            return True
        self.tell(error or redis.RedisError(record.getMessage()))
        return False

    def tell(self, error: BaseException) -> None:
        """Say that Redis cannot be reached, unless that has been said."""
        reason = reason_of(error, self._url)
        if self._thread == threading.get_ident() and not self.is_trouble:
            self.is_trouble = True
            logger.warning("redis.trouble", extra={"worker": self._worker, "reason": reason})

    def end(self) -> None:
        """Say that it is back, if it was gone."""
        if self.is_trouble:
            self.is_trouble = False
            logger.warning("redis.back", extra={"worker": self._worker})


def work(url: str, queue: str, name: str, *, stop: ShutdownFlag, burst: bool = False) -> None:
    """Run RQ's worker in this thread, the main one, until `stop` is set; without Redis, wait and try again.

    :param burst: return when the queue is empty.
    """
    once = _OutageFilter(name, url)
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


def _work_once(
    url: str, queue: str, name: str, *, stop: ShutdownFlag, burst: bool, once: _OutageFilter
) -> bool:
    """Run RQ's worker until it gives up; return False when Redis cannot be reached."""
    try:
        worker = make(url, queue, name, stop=stop, once=once)
        worker.work(burst=burst, logging_level="WARNING")
        return True
    except (redis.RedisError, OSError) as error:
        once.tell(error)
        return False


def make(
    url: str, queue: str, name: str, *, stop: ShutdownFlag, once: _OutageFilter | None = None
) -> _Worker:
    """Return RQ's worker, which does not work yet.

    :raises redis.RedisError: Redis cannot be reached.
    """
    connection = connect(url)
    connection.ping()
    queues, ttl = [Queue(queue, connection=connection)], WAIT + 15  # by so much RQ waits less than this
    worker = _Worker(queues, name=name, connection=connection, worker_ttl=ttl)
    worker.stop, worker.once = stop, once or _OutageFilter(name, url)
    return worker


@contextlib.contextmanager
def _own_signals() -> t.Iterator[None]:
    """Put the handlers back that were there before RQ installed its own, which would act on a worker that is gone."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
