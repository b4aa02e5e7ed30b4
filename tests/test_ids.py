from __future__ import annotations

import os
import signal
import threading
import time
import uuid

import pytest

from flask_webhooks import ids
from flask_webhooks.ids import uuid7


def test_is_a_uuid_of_version_7_in_canonical_form():
    text = uuid7()

    value = uuid.UUID(text)
    assert str(value) == text
    assert value.version == 7
    assert value.variant == uuid.RFC_4122


def test_carries_the_time_in_its_first_48_bits():
    before = time.time_ns() // 1_000_000
    made = uuid.UUID(uuid7()).int >> 80
    after = time.time_ns() // 1_000_000

    # Ids made in one millisecond count up and may run a little ahead of the clock, never behind.
    assert before <= made <= after + 1


def test_ids_sort_by_the_order_they_were_made_in():
    made = [uuid7() for _ in range(20_000)]

    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_ids_made_by_many_threads_are_unique_and_sorted_in_each():
    per_thread: list[list[str]] = [[] for _ in range(8)]
    start = threading.Barrier(8)

    def make(made):
        start.wait()
        made.extend(uuid7() for _ in range(2_000))

    threads = [threading.Thread(target=make, args=[made]) for made in per_thread]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert all(made == sorted(made) for made in per_thread)
    assert len({made for some in per_thread for made in some}) == 16_000


def test_ids_cannot_be_guessed_from_their_neighbours():
    gaps = {(uuid.UUID(uuid7()).int - uuid.UUID(uuid7()).int) & 0xFFFF_FFFF for _ in range(1_000)}

    assert len(gaps) > 990


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of other threads: they are the point
def test_a_forked_process_makes_other_ids_and_does_not_wait_for_threads_it_has_not():
    uuid7()  # what is drawn ahead must not be shared
    reader, writer = os.pipe()
    with ids._lock:  # as another thread may hold it
        child = os.fork()
        if not child:
            signal.alarm(10)  # ends it
            os.write(writer, "".join(uuid7()[15:] for _ in range(200)).encode())
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as told:
        theirs = told.read()
    os.waitpid(child, 0)

    ours = "".join(uuid7()[15:] for _ in range(200))
    assert len(theirs) == len(ours)
    assert {theirs[at : at + 21] for at in range(0, len(theirs), 21)}.isdisjoint(
        {ours[at : at + 21] for at in range(0, len(ours), 21)}
    )
