from __future__ import annotations

import threading
import time
import uuid

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

    def make(ids):
        start.wait()
        ids.extend(uuid7() for _ in range(2_000))

    threads = [threading.Thread(target=make, args=[ids]) for ids in per_thread]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert all(ids == sorted(ids) for ids in per_thread)
    assert len({made for ids in per_thread for made in ids}) == 16_000


def test_ids_cannot_be_guessed_from_their_neighbours():
    gaps = {(uuid.UUID(uuid7()).int - uuid.UUID(uuid7()).int) & 0xFFFF_FFFF for _ in range(1_000)}

    assert len(gaps) > 990
