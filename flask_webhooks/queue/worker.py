"""RQ's worker in this process. While Redis is unreachable it logs that once and waits; then it registers again."""

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
"""Seconds that RQ blocks for a job at a time. A signal that arrives just before the blocking system call does not
interrupt it (about one in a thousand if other threads run), so this bounds the delay of a shutdown."""


class _Worker(SimpleWorker):
    """RQ's worker without a fork: jobs share the process, its app and its connections to receivers."""

    stop: ShutdownFlag
    once: _OutageFilter
    is_leaving = False
    max_connection_wait_time = (
        5.0  # seconds; with RQ's 60, deliveries would wait a minute after Redis is back
    )

    def handle_warm_shutdown_request(self) -> None:
        """Called at the first SIGTERM or SIGINT."""
        self.stop.set()
        logger.warning("worker.stopping", extra={"worker": self.name})
        super().handle_warm_shutdown_request()  # type: ignore[no-untyped-call]

    def check_for_suspension(self, burst: bool) -> None:
        """Called before each wait: a signal may have arrived before RQ installed its handlers."""
        if self.stop.is_set():
            raise StopRequested
        super().check_for_suspension(burst)

    def heartbeat(self, timeout: int | None = None, pipeline: t.Any = None) -> None:
        """Called at each attempt to get a job. When it succeeds, Redis is back, perhaps without its data: register the
        worker again, which RQ itself does not do."""
        super().heartbeat(timeout, pipeline)
        if pipeline is None and (self.once.is_trouble or not self.connection.hexists(self.key, "birth")):
            self.register_birth()
            self.set_state(self.get_state())
            self.once.end()

    def unsubscribe(self) -> None:
        """Called at the end. End the thread that listens for RQ's commands by publishing a message, which it ignores.

        RQ would unsubscribe on that thread's connection. If the thread is just reconnecting, because Redis was away,
        both threads use the connection, and each reads replies meant for the other: the listening thread dies, or this
        one waits for ever.
        """
        if self.pubsub_thread is None:
            return
        self.is_leaving = True
        self.pubsub_thread.stop()
        until = time.monotonic() + 1.0  # if the thread is waiting for Redis, it ends by itself later
        with contextlib.suppress(redis.RedisError):
            while self.pubsub_thread.is_alive() and time.monotonic() < until:
                self.connection.publish(self.pubsub_channel_name, "")
                self.pubsub_thread.join(timeout=0.05)

    def handle_payload(self, message: t.Any) -> None:
        """Called for each of RQ's commands. An invalid one must not end the thread that waits for the next."""
        if self.is_leaving:
            return
        try:
            super().handle_payload(message)  # type: ignore[no-untyped-call]
        except Exception as error:
            extra = {"worker": self.name, "reason": f"{type(error).__name__}: {error}"}
            logger.warning("command.failed", extra=extra)

    def _pubsub_exception_handler(self, exc: Exception, pubsub: t.Any, pubsub_thread: t.Any) -> None:
        """Called in the listening thread. Reconnect after every error, such as an unexpected reply.

        RQ does so only when the connection is lost. redis-py subscribes again on the new connection.
        """
        if isinstance(exc, redis.ConnectionError) or not isinstance(exc, Exception):
            super()._pubsub_exception_handler(exc, pubsub, pubsub_thread)
            return
        if not isinstance(exc, redis.TimeoutError | redis.ResponseError):  # the working thread logs those
            extra = {"worker": self.name, "reason": f"{type(exc).__name__}: {exc}"}
            logger.warning("commands.interrupted", extra=extra)
        if pubsub.connection is not None:
            pubsub.connection.disconnect()
        self.stop.wait(1.0)

    def register_birth(self) -> None:
        """Delete the entry with this name first: it is our own, left by a lost connection or a killed container."""
        self.connection.delete(self.key)
        super().register_birth()  # type: ignore[no-untyped-call]


class _OutageFilter(logging.Filter):
    """Replaces RQ's messages about an unreachable Redis, one for each attempt in two threads, by one log event.

    Only the working thread logs, because it also notices that Redis is back. Otherwise the last event could be that of
    the other thread, and say that Redis is unreachable when it is not.
    """

    def __init__(self, worker: str, url: str) -> None:
        super().__init__()
        self._worker, self._url, self._thread = worker, url, threading.get_ident()
        self.is_trouble = False

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if "Redis" not in record.msg and not isinstance(error, redis.RedisError):
            return True
        self.begin(error or redis.RedisError(record.getMessage()))
        return False

    def begin(self, error: BaseException) -> None:
        """Log that Redis cannot be reached, unless that was logged already."""
        reason = reason_of(error, self._url)
        if self._thread == threading.get_ident() and not self.is_trouble:
            self.is_trouble = True
            logger.warning("redis.trouble", extra={"worker": self._worker, "reason": reason})

    def end(self) -> None:
        """Log that Redis is back, if its absence was logged."""
        if self.is_trouble:
            self.is_trouble = False
            logger.warning("redis.back", extra={"worker": self._worker})


def work(url: str, queue: str, name: str, *, stop: ShutdownFlag, burst: bool = False) -> None:
    """Run RQ's worker in the main thread until `stop` is set; while Redis is unreachable, wait and try again.

    :param burst: return when the queue is empty.
    :raises SystemExit: RQ's answer to a second signal.
    """
    once = _OutageFilter(name, url)
    rq_log = logging.getLogger("rq.worker")
    rq_log.addFilter(once)
    wait = 0.5
    try:
        while not stop.is_set():
            began = time.monotonic()
            with _own_signals(), contextlib.suppress(StopRequested):
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
        once.begin(error)
        return False


def make(
    url: str, queue: str, name: str, *, stop: ShutdownFlag, once: _OutageFilter | None = None
) -> _Worker:
    """Return RQ's worker, not started yet.

    :raises redis.RedisError: Redis cannot be reached.
    """
    connection = connect(url)
    connection.ping()
    queues, ttl = [Queue(queue, connection=connection)], WAIT + 15  # RQ blocks for worker_ttl - 15 seconds
    worker = _Worker(queues, name=name, connection=connection, worker_ttl=ttl)
    worker.stop, worker.once = stop, once or _OutageFilter(name, url)
    return worker


@contextlib.contextmanager
def _own_signals() -> t.Iterator[None]:
    """Restore the previous signal handlers at the end: RQ's own ones would act on a worker that no longer exists."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
