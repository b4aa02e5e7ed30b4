"""Workers as processes: `flask webhooks worker`, a stock `rq worker`, `flask webhooks deliver`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
import typing as t
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis
import sqlalchemy as sa
from rq.command import send_shutdown_command

from flask_webhooks import outbox, queue
from flask_webhooks.models import Delivery, Lane, Worker
from flask_webhooks.queue import Bell, Embedded
from flask_webhooks.queue import worker as rq_worker
from flask_webhooks.shutdown import ShutdownFlag
from flask_webhooks.state import AppState, state_of
from flask_webhooks.worker.maintenance import INTERVAL, Maintenance, is_stalled
from tests.processes import Processes, in_session
from tests.receivers import Receiver
from tests.stage import attempts, deliveries, fill, lane_of, recorded, subscribe, wait_until
from tests.worker.answers import Gate

pytestmark = pytest.mark.long


@pytest.fixture
def processes(state: AppState, tmp_path: Path, valkey: str) -> t.Iterator[Processes]:
    with Processes(state, tmp_path, valkey) as started:
        yield started


@pytest.fixture
def patient(state: AppState, tmp_path: Path, valkey: str) -> t.Iterator[Processes]:
    """Processes that wait for receivers longer than any test takes."""
    with Processes(state, tmp_path, valkey, WEBHOOKS_TIMEOUT=[50, 100]) as started:
        yield started


@pytest.fixture
def bell(valkey: str, tmp_path: Path) -> Bell:
    return Bell(valkey, Embedded(tmp_path / "none"), "webhooks", "tests.served")


@pytest.fixture
def listener(valkey: str) -> t.Iterator[t.Any]:
    """RQ's worker, which only listens to commands."""
    worker = rq_worker.make(valkey, "webhooks", "listener", stop=ShutdownFlag())
    worker.subscribe()
    wait_until(lambda: worker.connection.pubsub_numsub(worker.pubsub_channel_name)[0][1])
    yield worker
    worker.unsubscribe()


def workers(state: AppState) -> list[str]:
    with state.engine.connect() as connection:
        return [row.name for row in outbox.workers(connection)]


def delivered_by(state: AppState) -> int | None:
    with state.engine.connect() as connection:
        return connection.scalar(sa.select(Worker.delivered))


@contextlib.contextmanager
def closed(state: AppState) -> t.Iterator[None]:
    """End all connections to the database, and refuse new ones."""
    name = state.engine.url.database
    state.engine.dispose()
    elsewhere = sa.create_engine(state.engine.url.set(database="postgres"), isolation_level="AUTOCOMMIT")
    with elsewhere.connect() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        others = sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name")
        connection.execute(others, {"name": name})
        yield
        connection.exec_driver_sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    elsewhere.dispose()


def forgetful(state: AppState) -> AppState:
    """An app that keeps nothing of what is finished."""
    return replace(state, settings=replace(state.settings, retention=timedelta(0)))


def finished(state: AppState, messages: int) -> None:
    """Put messages into the database that have been delivered."""
    fill(state, [subscribe(state, "http://127.0.0.1:1/")], messages)
    with state.engine.begin() as connection:
        connection.execute(sa.update(Delivery).values(state="delivered", due_at=None))


def count(state: AppState) -> int:
    """How many messages there are."""
    return len(recorded(state))


class TestOurWorker:
    def test_it_delivers_with_and_without_a_ring(self, state, processes, inbox, bell):
        subscription = subscribe(state, inbox.url())
        processes.worker()

        fill(state, [subscription], 1)
        bell.ring()
        inbox.wait_for(1)
        fill(state, [subscription], 1)  # without a ring: the sweep finds it

        inbox.wait_for(2)

    def test_it_writes_its_heartbeat_and_its_counts_until_it_ends(self, state, processes, inbox):
        fill(state, [subscribe(state, inbox.url())], 5)
        worker = processes.worker()

        [name] = wait_until(lambda: workers(state))
        wait_until(lambda: delivered_by(state) == 5)
        assert name.endswith(f":{worker.pid}")

        assert worker.end() == 0
        assert workers(state) == []

    def test_sigterm_finishes_what_is_under_way_gives_back_the_rest_and_exits_0(self, state, patient):
        gate = Gate()
        with Receiver(gate) as receiver:
            subscription = subscribe(state, receiver.url())
            fill(state, [subscription], 50)
            worker = patient.worker()
            worker.wait_until(
                lambda: gate.held == 2
            )  # the first slots of a receiver that has not answered yet
            worker.send(signal.SIGTERM)
            worker.wait_for("worker.stopping")
            gate.opened.set()

            assert worker.wait() == 0

        found = [row.state for row in deliveries(state)]
        assert (found.count("delivered"), found.count("pending")) == (2, 48)
        assert len(receiver.requests) == len(attempts(state)) == 2
        assert lane_of(state, subscription).leased_until is None

    def test_a_second_signal_is_hard(self, state, patient):
        gate = Gate()
        with Receiver(gate) as receiver:
            fill(state, [subscribe(state, receiver.url())], 4)
            worker = patient.worker()
            worker.wait_until(lambda: gate.held)
            worker.send(signal.SIGTERM)
            worker.wait_for("worker.stopping")
            began = time.monotonic()
            # RQ takes two signals within one second for one, sent twice by a terminal and by a supervisor.
            wait_until(lambda: time.monotonic() - began > 1.1)
            worker.send(signal.SIGTERM)

            worker.wait()  # the attempts would take a hundred seconds

        assert attempts(state) == []

    def test_what_a_dead_worker_had_is_taken_over_when_its_lease_ends_within_a_minute(self, state, processes):
        gate = Gate()
        with Receiver(gate) as receiver:
            subscription = subscribe(state, receiver.url())
            fill(state, [subscription], 5)
            victim = processes.worker()
            victim.wait_until(lambda: gate.held)
            victim.end(signal.SIGKILL)
            died = datetime.now(UTC)
            gate.opened.set()
            other = processes.worker()
            other.wait_until(lambda: any(name.endswith(f":{other.pid}") for name in workers(state)))

            until = lane_of(state, subscription).leased_until
            assert until is not None
            assert died < until < died + timedelta(seconds=60 - 2 * INTERVAL)
            assert attempts(state) == []
            with state.engine.begin() as connection:
                connection.execute(sa.update(Lane).values(leased_until=died))

            other.wait_until(lambda: {row.state for row in deliveries(state)} == {"delivered"}, 30)
            assert other.end() == 0

    def test_sigterm_ends_an_idle_worker_at_once(self, processes):
        worker = processes.worker()

        assert worker.end() == 0

    @pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # has no part in it
    def test_an_outage_of_redis_and_its_end_are_logged_once_and_nothing_waits(
        self, state, processes, inbox, tmp_path
    ):
        subscription = subscribe(state, inbox.url())
        worker = processes.worker()
        client = redis.Redis.from_url(processes.redis_url)
        name = wait_until(lambda: client.smembers("rq:workers"))
        for times in (1, 2):
            client.shutdown(nosave=True)
            fill(state, [subscription], 20)
            inbox.wait_for(40 * times - 20)  # the sweep delivers
            worker.wait_for("redis.trouble", count=times)

            Embedded(tmp_path / "valkey").start()
            worker.wait_for("redis.back", count=times)

            worker.wait_until(lambda: client.smembers("rq:workers") == name)
            assert client.hget(*name, "birth")
            fill(state, [subscription], 20)
            inbox.wait_for(40 * times)
            worker.wait_until(lambda: not client.llen("rq:queue:webhooks"))
            assert worker.said.count("redis.trouble") == worker.said.count("redis.back") == times

        assert worker.end() == 0
        assert "Traceback" not in worker.said

    @pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
    def test_a_command_that_is_none_does_not_keep_it_from_hearing_the_next(self, processes):
        worker = processes.worker()
        client = redis.Redis.from_url(processes.redis_url)
        [name] = wait_until(lambda: client.smembers("rq:workers"))
        name = name.decode().removeprefix("rq:worker:")
        channel = f"rq:pubsub:{name}"
        wait_until(lambda: client.publish(channel, "no command"))
        worker.wait_for("command.failed")

        send_shutdown_command(client, name)

        worker.wait_for("has stopped")
        assert "Traceback" not in worker.said

    def test_an_answer_out_of_place_does_not_keep_it_from_hearing_commands(self, listener, caplog):
        listener.pubsub.connection.send_command("HELLO", 3)  # an error, or what is no message at all

        def is_heard() -> bool:
            listener.connection.publish(listener.pubsub_channel_name, "no command")
            return "command.failed" in caplog.messages

        wait_until(is_heard)

    def test_it_leaves_well_while_it_begins_to_listen_anew(self, listener):
        """Two threads on one connection that is just made would take each other's replies."""
        listener.connection.client_kill_filter(_type="pubsub")

        listener.unsubscribe()

        wait_until(lambda: not listener.pubsub_thread.is_alive(), 20)  # redis-py waits before it tries again

    @pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
    def test_sigterm_ends_it_well_while_redis_is_away(self, processes):
        worker = processes.worker()
        redis.Redis.from_url(processes.redis_url).shutdown(nosave=True)
        worker.wait_for("redis.trouble")

        assert worker.end() == 0

    @pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
    def test_a_second_signal_is_hard_while_the_sweep_delivers(self, state, tmp_path):
        gate, nowhere = Gate(), "redis://127.0.0.1:1/0"
        with (
            Receiver(gate) as receiver,
            Processes(state, tmp_path, nowhere, WEBHOOKS_TIMEOUT=[50, 100]) as it,
        ):
            fill(state, [subscribe(state, receiver.url())], 4)
            worker = it.worker()
            worker.wait_until(lambda: gate.held)
            worker.send(signal.SIGTERM)
            worker.wait_for("worker.stopping")
            worker.send(signal.SIGTERM)

            assert (
                worker.wait(20) == 128 + signal.SIGTERM
            )  # and not after the 30 s that it would wait for the sweep

    def test_flushall_with_deliveries_pending_loses_nothing(self, state, processes, inbox, bell):
        subscription = subscribe(state, inbox.url())
        worker = processes.worker()
        client = redis.Redis.from_url(processes.redis_url)
        for _ in range(5):
            fill(state, [subscription], 20)
            bell.ring()
            client.flushall()

        inbox.wait_for(100)
        worker.wait_until(lambda: {row.state for row in deliveries(state)} == {"delivered"})
        client.flushall()
        bell.ring()  # and the worker that gets a job registers again
        worker.wait_until(lambda: client.smembers("rq:workers"))
        assert "redis." not in worker.said

    def test_a_name_that_a_killed_container_has_left_in_redis_is_taken_over(self, valkey, caplog):
        redis.Redis.from_url(valkey).hset("rq:worker:host:1", "birth", "2026-01-01T00:00:00Z")
        stop = ShutdownFlag()
        giving_up = threading.Timer(30.0, stop.set)
        giving_up.start()

        queue.work(valkey, "webhooks", "host:1", stop=stop, burst=True)

        giving_up.cancel()
        assert not stop.is_set()
        assert "redis.trouble" not in caplog.text

    def test_several_processes_share_one_embedded_valkey(self, state, tmp_path, inbox):
        with Processes(state, tmp_path, None) as started:
            first, second = started.worker(), started.worker()
            embedded = Embedded(tmp_path / "instance" / "webhooks")
            fill(state, [subscribe(state, inbox.url())], 1)
            bell = Bell(None, embedded, "webhooks", "tests.served")
            assert bell.ring()
            inbox.wait_for(1)

            assert first.end() == 0
            assert embedded.is_started()
            assert second.end() == 0


class TestStockWorker:
    @pytest.mark.parametrize("kind", ["forking", "simple"])
    def test_it_delivers_and_retries(self, state, processes, kind, bell):
        from tests.worker.answers import one_after_another

        words = ["--worker-class", "rq.SimpleWorker"] if kind == "simple" else []
        with Receiver(one_after_another(500, 200)) as receiver:
            fill(state, [subscribe(state, receiver.url(), retry=[0.5])], 1)
            bell.ring()
            processes.stock_worker(*words)

            receiver.wait_for(2)
            wait_until(lambda: [row.state for row in deliveries(state)] == ["delivered"])

    def test_it_finds_the_app_by_the_path_in_the_job(self, state, processes, inbox, valkey, tmp_path):
        bell = Bell(valkey, Embedded(tmp_path / "none"), "webhooks", "tests.served:create_app")
        fill(state, [subscribe(state, inbox.url())], 1)
        bell.ring()

        processes.stock_worker(FLASK_APP="")

        inbox.wait_for(1)

    def test_nothing_of_a_forking_one_is_left_when_a_test_has_ended(self, state, patient, bell):
        gate = Gate()
        with Receiver(gate) as receiver:
            fill(state, [subscribe(state, receiver.url())], 1)
            bell.ring()
            worker = patient.stock_worker()
            worker.wait_until(lambda: gate.held)
            [horse] = in_session(worker.pid) - {worker.pid}
            assert os.getpgid(horse) == horse

            worker.kill_all()

            assert in_session(worker.pid) == set()


class TestDeliver:
    def test_it_works_through_what_is_due_once_without_redis(self, state, tmp_path, inbox):
        fill(state, [subscribe(state, inbox.url())], 30)
        nowhere = "redis://127.0.0.1:1/0"
        with Processes(state, tmp_path, nowhere, WEBHOOKS_TIMEOUT=[50, 100]) as started:
            process = started.start("flask", "webhooks", "deliver", "--json")

            assert process.wait() == 0

        assert json.loads(process.said.splitlines()[-1]) == {"delivered": 30, "failed": 0, "next_due": None}
        assert len(inbox.requests) == 30

    def test_it_goes_on_with_watch_and_sigterm_ends_it(self, state, tmp_path, inbox):
        subscription = subscribe(state, inbox.url())
        fill(state, [subscription], 1)
        with Processes(state, tmp_path, "redis://127.0.0.1:1/0") as started:
            process = started.start("flask", "webhooks", "deliver", "--watch")
            inbox.wait_for(1)
            fill(state, [subscription], 1)
            inbox.wait_for(2)
            assert len(workers(state)) == 1

            assert process.end() == 0

        assert workers(state) == []

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
    def test_the_first_signal_lets_what_is_under_way_end(self, state, patient, number):
        gate = Gate()
        with Receiver(gate) as receiver:
            subscription = subscribe(state, receiver.url())
            fill(state, [subscription], 20)
            process = patient.start("flask", "webhooks", "deliver", "--watch")
            process.wait_until(lambda: gate.held == 2)
            process.send(number)
            process.wait_for("worker.stopping")
            gate.opened.set()

            assert process.wait() == 0

        assert len(attempts(state)) == len(receiver.requests) == 2
        assert lane_of(state, subscription).leased_until is None

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
    def test_the_second_signal_is_hard(self, state, patient, number):
        gate = Gate()
        with Receiver(gate) as receiver:
            fill(state, [subscribe(state, receiver.url())], 4)
            process = patient.start("flask", "webhooks", "deliver", "--watch")
            process.wait_until(lambda: gate.held)

            process.send(number)
            process.wait_for("worker.stopping")
            process.send(number)

            assert process.wait() == 128 + number
        assert attempts(state) == []

    @pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # SQLite does not go away
    def test_an_outage_of_the_database_is_logged_once_and_it_is_used_again(self, state, tmp_path, inbox):
        subscription = subscribe(state, inbox.url())
        with Processes(state, tmp_path, "redis://127.0.0.1:1/0") as started:
            process = started.start("flask", "webhooks", "deliver", "--watch")
            process.wait_until(lambda: workers(state))
            for times in (1, 2):
                with closed(state):
                    process.wait_for("database.trouble", count=times)
                fill(state, [subscription], 1)
                inbox.wait_for(times)
                process.wait_for("database.back", count=times)
            assert process.end() == 0

        # By one of those who missed it, for all.
        assert process.said.count("database.trouble") == process.said.count("database.back") == 2


class TestSweep:
    def test_it_purges_a_little_at_a_time_so_that_its_heart_goes_on(self, state):
        finished(state, 2_500)
        sweep = Maintenance(forgetful(state), "host:1", purging=0.0)
        left = []
        for turn in range(4):
            sweep.cycle(turn * 20.0)
            left.append(count(state))

        assert left == [1_500, 500, 0, 0]
        finished(state, 1)
        sweep.cycle(3_600.0 + 40.0)  # an hour after the purge that found nothing more, and not before
        assert count(state) == 1
        sweep.cycle(3_600.0 + 60.0)
        assert count(state) == 0

    def test_one_of_several_workers_purges(self, state):
        finished(state, 1)
        with state.engine.begin() as connection:
            outbox.heartbeat(connection, "host:1", datetime.now(UTC))
        sweep = Maintenance(forgetful(state), "host:2")
        sweep.cycle(0.0)
        assert count(state) == 1

        with state.engine.begin() as connection:
            outbox.heartbeat(connection, "host:1", datetime.now(UTC) - timedelta(seconds=125))  # and dies
        sweep.cycle(20.0)

        assert count(state) == 0

    def test_what_is_no_exception_does_not_wait_for_what_the_sweep_delivers(self, make_app):
        state = state_of(make_app(WEBHOOKS_REDIS_URL="redis://127.0.0.1:1/0", WEBHOOKS_TIMEOUT=[50, 100]))
        gate = Gate()
        with Receiver(gate) as receiver:
            fill(state, [subscribe(state, receiver.url())], 1)
            with pytest.raises(SystemExit), Maintenance(state, "host:1", interval=0.05):
                wait_until(lambda: gate.held)
                began = time.monotonic()
                raise SystemExit
            assert time.monotonic() - began < 15  # and not the 30 s that it waits otherwise
            gate.opened.set()
            wait_until(lambda: "webhooks-sweep" not in [each.name for each in threading.enumerate()])

    def test_it_delivers_by_itself_while_redis_cannot_be_reached(self, make_app, inbox):
        state = state_of(make_app(WEBHOOKS_REDIS_URL="redis://127.0.0.1:1/0"))
        fill(state, [subscribe(state, inbox.url())], 1)

        with Maintenance(state, "host:1", interval=0.05):
            inbox.wait_for(1)

    def test_nothing_is_swept_when_sending_is_switched_off(self, make_app, inbox):
        state = state_of(make_app(WEBHOOKS_ENABLED=False, WEBHOOKS_REDIS_URL="redis://127.0.0.1:1/0"))
        fill(state, [subscribe(state, inbox.url())], 1)

        with Maintenance(state, "host:1", interval=0.01):
            wait_until(lambda: workers(state) == ["host:1"])

        assert inbox.requests == []

    def test_a_worker_is_taken_for_dead_after_eight_missed_heartbeats(self):
        now = datetime.now(UTC)

        assert not is_stalled(now - timedelta(seconds=119), now)
        assert is_stalled(now - timedelta(seconds=121), now)


class TestBell:
    @pytest.mark.parametrize("kind", ["closed", "deaf"])
    def test_redis_down_costs_less_than_half_a_second_and_then_nothing(self, tmp_path, kind):
        with socket.create_server(("127.0.0.1", 0)) as deaf:
            port = deaf.getsockname()[1] if kind == "deaf" else 1

            def is_cheap() -> bool:
                none = Embedded(tmp_path / "none")
                bell = Bell(f"redis://127.0.0.1:{port}/0", none, "webhooks", "tests.served")
                began = time.perf_counter()
                assert not bell.ring()
                first = time.perf_counter() - began
                began = time.perf_counter()
                assert not any(bell.ring() for _ in range(100))
                return first < 0.5 and time.perf_counter() - began < 0.1

            wait_until(is_cheap, about="one try that nothing else on this machine has held up")

    def test_a_hundred_rings_make_one_job_until_a_worker_looks(self, bell):
        for _ in range(100):
            assert bell.ring()
        assert bell.depth() == 1
        assert bell.is_rung()

        bell.clear()

        assert not bell.is_rung()
        assert bell.ring()
        assert bell.depth() == 2

    def test_the_first_commit_starts_no_server(self, tmp_path):
        bell = Bell(None, Embedded(tmp_path / "webhooks"), "webhooks", "tests.served")

        assert not bell.ring()
        assert list(tmp_path.iterdir()) == []
