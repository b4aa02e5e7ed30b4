from __future__ import annotations

import itertools
import threading
import time
from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from flask_webhooks.worker.scheduler import Probation
from tests.worker.scheduling import KeyedScheduler

FOREVER = 1e9


def make_scheduler(*, cap=4, concurrency=8, **options):
    return KeyedScheduler(cap=cap, concurrency=concurrency, **options)


def fill(scheduler, lanes, *, items=100, proven=True, **terms):
    """Add lanes a, b, … with items a0, a1, …; proven ones have answered quickly, twice."""
    for key in lanes:
        scheduler.add(key, [f"{key}{n}" for n in range(items)], **{"lease_until": FOREVER, **terms})
    if proven:
        prove(scheduler, lanes)


def prove(scheduler, lanes, now=0.0):
    """Let each lane succeed twice with its first items."""
    for _ in range(2 * len(lanes)):
        item = scheduler.take(now)
        scheduler.done(item[0], ok=True, seconds=0.01, now=now)


def drain(scheduler, now=0.0):
    """Take until no lane may send."""
    return list(iter(lambda: scheduler.take(now), None))


class TestTurns:
    def test_lanes_take_turns_whatever_their_backlog(self):
        scheduler = make_scheduler()
        fill(scheduler, "abc", items=5)
        scheduler.extend("a", [f"a{n}" for n in range(5, 1000)])

        order = [item[0] for item in (scheduler.take(0.0) for _ in range(9))]

        assert order == list("abcabcabc")

    def test_a_lane_keeps_its_order(self):
        scheduler = make_scheduler()
        fill(scheduler, "a", items=3, proven=False)

        taken = []
        for _ in range(3):
            taken.append(scheduler.take(0.0))
            scheduler.done("a", ok=True, seconds=0.01, now=0.0)

        assert taken == ["a0", "a1", "a2"]
        assert scheduler.take(0.0) is None

    def test_a_lane_added_later_is_served_in_the_same_round(self):
        scheduler = make_scheduler()
        fill(scheduler, "ab")
        scheduler.take(0.0)
        scheduler.add("c", ["c0"], lease_until=FOREVER)

        assert [scheduler.take(0.0)[0] for _ in range(3)] == list("bac")


class TestSlots:
    def test_a_proven_lane_has_cap_in_flight_and_no_more(self):
        scheduler = make_scheduler(cap=4)
        fill(scheduler, "a")

        assert len(drain(scheduler)) == 4

    @pytest.mark.parametrize(("terms", "slots"), [({}, 2), ({"suspect": True}, 1), ({"cap": 1}, 1)])
    def test_a_new_lane_begins_with(self, terms, slots):
        scheduler = make_scheduler()
        fill(scheduler, "a", proven=False, **terms)

        assert len(drain(scheduler)) == slots

    def test_successes_double_the_slots_of_a_suspect_lane_up_to_cap(self):
        scheduler = make_scheduler(cap=4)
        fill(scheduler, "a", proven=False, suspect=True)

        in_flight = []
        for _ in range(4):
            drain(scheduler)
            in_flight.append(scheduler.in_flight_of("a"))
            scheduler.done("a", ok=True, seconds=0.01, now=0.0)

        assert in_flight == [1, 2, 4, 4]

    def test_failures_halve_them_and_an_unreachable_destination_keeps_one(self):
        scheduler = make_scheduler(cap=4)
        fill(scheduler, "ab")
        drain(scheduler)

        scheduler.done("a", ok=False, seconds=0.01, now=0.0)
        scheduler.done("b", ok=False, seconds=5.0, now=0.0, suspect=True)
        for key, _ in itertools.product("ab", range(3)):
            scheduler.done(key, ok=False, seconds=0.01, now=0.0)

        assert sorted(item[0] for item in drain(scheduler)) == ["a", "b"]

    def test_a_probe_never_grows_beyond_its_own_cap(self):
        scheduler = make_scheduler()
        fill(scheduler, "a", proven=False, cap=1)

        for _ in range(3):
            assert len(drain(scheduler)) == 1
            scheduler.done("a", ok=True, seconds=0.01, now=0.0)


class TestProbation:
    def test_dead_lanes_never_hold_more_than_their_share(self):
        scheduler = make_scheduler(concurrency=8, slow_share=0.5)
        fill(scheduler, "abcdefgh", proven=False, suspect=True)

        assert drain(scheduler) == ["a0", "b0", "c0"]

    def test_a_new_lane_does_not_wait_behind_dead_ones(self):
        scheduler = make_scheduler(concurrency=8, slow_share=0.5)
        fill(scheduler, "abcdefgh", proven=False, suspect=True)
        drain(scheduler)

        scheduler.add("z", ["z0"], lease_until=FOREVER)

        assert scheduler.take(0.0) == "z0"

    def test_new_lanes_that_turn_out_dead_leave_room_for_newer_ones(self):
        scheduler = make_scheduler(concurrency=8, slow_share=0.5)
        fill(scheduler, "abcd", proven=False, cap=1)
        for item in drain(scheduler):
            scheduler.done(item[0], ok=False, seconds=5.0, now=0.0, suspect=True)
        assert len(drain(scheduler)) == 3

        scheduler.add("z", ["z0"], lease_until=FOREVER)

        assert drain(scheduler) == ["z0"]

    def test_a_proven_lane_passes_while_the_share_is_used_up(self):
        scheduler = make_scheduler(concurrency=2, slow_share=0.5)
        fill(scheduler, "z")
        fill(scheduler, "abc", proven=False, suspect=True)

        assert Counter(item[0] for item in drain(scheduler)) == {"z": 4, "a": 1}

    def test_those_that_wait_for_the_share_take_turns(self):
        scheduler = make_scheduler(concurrency=2, slow_share=0.5)
        fill(scheduler, "abc", proven=False, suspect=True)

        order = []
        for _ in range(6):
            order.append(scheduler.take(0.0)[0])
            assert scheduler.take(0.0) is None
            scheduler.done(order[-1], ok=False, seconds=5.0, now=0.0, suspect=True)

        assert order == list("abcabc")

    def test_a_slow_success_keeps_its_slots_but_counts_in_the_share(self):
        scheduler = make_scheduler(cap=4, concurrency=8, slow_share=0.5, slow_after=1.0)
        fill(scheduler, "a")
        for _ in range(4):
            scheduler.take(0.0)
            scheduler.done("a", ok=True, seconds=1.0, now=0.0)

        assert len(drain(scheduler)) == 3

    def test_a_quick_success_leaves_probation_and_lets_the_next_in(self):
        scheduler = make_scheduler(concurrency=2, slow_share=0.5)
        fill(scheduler, "ab", proven=False)
        assert drain(scheduler) == ["a0"]

        scheduler.done("a", ok=True, seconds=0.01, now=0.0)

        assert sorted(drain(scheduler)) == ["a1", "a2", "a3", "a4", "b0"]

    def test_a_quick_refusal_proves_nothing(self):
        scheduler = make_scheduler(concurrency=2, slow_share=0.5)
        fill(scheduler, "ab", proven=False)
        drain(scheduler)

        scheduler.done("a", ok=False, seconds=0.01, now=0.0)

        assert drain(scheduler) == ["b0"]

    def test_a_lane_that_dies_while_its_turn_comes_up_gets_no_slot_beyond_the_share(self):
        scheduler = make_scheduler(concurrency=4, slow_share=0.5)
        fill(scheduler, "z")
        fill(scheduler, "ab", proven=False, cap=1)
        assert [scheduler.take(0.0)[0] for _ in range(3)] == list("zab")

        scheduler.done("z", ok=False, seconds=5.0, now=0.0, suspect=True)

        assert scheduler.take(0.0) is None

    def test_removing_a_lane_gives_its_slot_of_the_share_to_the_next(self):
        scheduler = make_scheduler(concurrency=2, slow_share=0.5)
        fill(scheduler, "ab", proven=False, items=1)

        assert scheduler.remove("a") == ["a0"]

        assert drain(scheduler) == ["b0"]


class TestLease:
    def test_no_attempt_begins_that_could_outlast_the_lease(self):
        scheduler = make_scheduler(attempt=20.0)
        scheduler.add("a", ["a0", "a1"], lease_until=100.0)

        assert scheduler.take(80.0) == "a0"
        assert scheduler.take(80.001) is None

    def test_renewing_brings_the_lane_back(self):
        scheduler = make_scheduler(attempt=20.0)
        scheduler.add("a", ["a0"], lease_until=10.0)
        assert scheduler.take(0.0) is None

        scheduler.renew("a", 20.0)

        assert scheduler.take(0.0) == "a0"

    def test_a_short_lease_delays_no_other(self):
        scheduler = make_scheduler(concurrency=2, slow_share=0.5, attempt=20.0)
        scheduler.add("a", ["a0"], lease_until=10.0)
        scheduler.add("b", ["b0"], lease_until=FOREVER)

        assert drain(scheduler) == ["b0"]


class TestRate:
    def test_starts_keep_their_distance(self):
        scheduler = make_scheduler(cap=100)
        fill(scheduler, "a", rate=2.0, proven=False)

        starts = []
        for tick in range(40):
            if scheduler.take(tick / 10):
                starts.append(tick / 10)
                scheduler.done("a", ok=True, seconds=0.01, now=tick / 10)

        assert starts == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5]

    def test_an_idle_time_is_not_saved_up(self):
        scheduler = make_scheduler(cap=100)
        fill(scheduler, "a", rate=10.0, proven=False)
        scheduler.take(0.0)
        scheduler.done("a", ok=True, seconds=0.01, now=0.0)

        # 60 s * 10/s would be 600
        assert len(drain(scheduler, now=60.0)) == 1

    def test_a_late_turn_is_made_up_for_within_a_twentieth_of_a_second(self):
        scheduler = make_scheduler(cap=100)
        fill(scheduler, "a", rate=100.0, proven=False)
        now = iter(range(1, 100))
        for _ in range(7):
            scheduler.take(float(next(now)))
            scheduler.done("a", ok=True, seconds=0.01, now=0.0)

        # 0.05 s * 100/s, and the one that is due anyway
        assert len(drain(scheduler, now=1000.0)) == 6

    def test_an_even_lane_makes_up_for_no_late_turn(self):
        scheduler = make_scheduler(cap=100)
        fill(scheduler, "a", rate=100.0, even=True, proven=False)
        for now in (0.0, 1.0):
            scheduler.take(now)
            scheduler.done("a", ok=True, seconds=0.01, now=now)

        assert drain(scheduler, 5.0) == ["a2"]
        assert drain(scheduler, 5.009) == []
        assert drain(scheduler, 5.011) == ["a3"]

    def test_a_waiting_lane_holds_no_slot_of_the_share(self):
        scheduler = make_scheduler(concurrency=2, slow_share=0.5)
        fill(scheduler, "a", rate=1.0, proven=False)
        scheduler.take(0.0)
        scheduler.done("a", ok=False, seconds=0.01, now=0.0)
        fill(scheduler, "b", proven=False, items=1)

        assert scheduler.take(0.1) == "b0"

    def test_a_rate_set_by_mistake_can_be_undone(self):
        scheduler = make_scheduler()
        fill(scheduler, "a", rate=0.001, proven=False)
        scheduler.take(0.0)
        assert scheduler.take(1.0) is None

        scheduler.add("a", [], lease_until=FOREVER)

        assert scheduler.take(1.0) == "a1"


class TestComingAndGoing:
    def test_remove_gives_back_what_was_not_started_in_order(self):
        scheduler = make_scheduler()
        fill(scheduler, "a", items=4, proven=False)
        scheduler.take(0.0)

        assert scheduler.remove("a") == ["a1", "a2", "a3"]
        assert (scheduler.queued, scheduler.in_flight) == (0, 1)
        assert scheduler.take(0.0) is None

    def test_what_is_in_flight_can_be_reported_after_removal(self):
        scheduler = make_scheduler()
        fill(scheduler, "a", items=1, proven=False)
        scheduler.take(0.0)
        scheduler.remove("a")

        scheduler.done("a", ok=True, seconds=0.01, now=0.0)

        assert scheduler.in_flight == 0
        with pytest.raises(KeyError):
            scheduler.done("a", ok=True, seconds=0.01, now=0.0)

    def test_a_lane_that_comes_back_still_counts_what_it_has_in_flight(self):
        scheduler = make_scheduler()
        fill(scheduler, "a", proven=False)
        assert len(drain(scheduler)) == 2
        scheduler.remove("a")

        fill(scheduler, "a", proven=False)

        assert scheduler.take(0.0) is None

    def test_a_removed_lane_takes_no_items_and_no_lease(self):
        scheduler = make_scheduler()
        fill(scheduler, "a", proven=False)
        scheduler.take(0.0)
        scheduler.remove("a")

        with pytest.raises(KeyError):
            scheduler.extend("a", ["a9"])
        with pytest.raises(KeyError):
            scheduler.renew("a", FOREVER)
        assert scheduler.remove("b") == []

    def test_extending_an_empty_lane_wakes_it(self):
        scheduler = make_scheduler()
        fill(scheduler, "a", items=0, proven=False)
        assert scheduler.take(0.0) is None

        scheduler.extend("a", ["a0"])

        assert (scheduler.queued_of("a"), scheduler.take(0.0)) == (1, "a0")
        assert (scheduler.queued_of("a"), scheduler.in_flight_of("a")) == (0, 1)

    def test_stop_starts_nothing_more(self):
        scheduler = make_scheduler()
        fill(scheduler, "a", proven=False)

        scheduler.stop()

        assert scheduler.take(0.0) is None
        assert len(scheduler.remove("a")) == 100

    def test_a_thread_that_waits_takes_nothing_once_the_process_is_to_end(self):
        stopping = threading.Event()
        scheduler = make_scheduler(is_stopping=stopping.is_set)
        fill(scheduler, "a", items=0, proven=False)
        got = []
        thread = threading.Thread(target=lambda: got.append(scheduler.wait_take(time.monotonic, 0.2)))
        thread.start()

        stopping.set()
        scheduler.extend("a", ["a0"])
        thread.join(10)

        assert got == [None]
        assert scheduler.remove("a") == ["a0"]


class Woken(threading.Condition):
    """Counts how often it wakes a thread."""

    count = 0

    def notify(self, n: int = 1) -> None:
        self.count += 1
        super().notify(n)


class TestWaiting:
    def test_gives_up_after_the_timeout(self):
        scheduler = make_scheduler()
        began = time.monotonic()

        assert scheduler.wait_take(time.monotonic, 0.05) is None
        assert 0.05 <= time.monotonic() - began < 5

    def test_waits_no_longer_than_the_rate_asks(self):
        scheduler = make_scheduler()
        fill(scheduler, "a", rate=5.0, proven=False)
        scheduler.take(time.monotonic())
        began = time.monotonic()

        assert scheduler.wait_take(time.monotonic, 30) == "a1"
        assert time.monotonic() - began < 10

    @pytest.mark.parametrize(
        "change",
        [
            lambda scheduler: scheduler.add("b", ["b0"], lease_until=FOREVER),
            lambda scheduler: scheduler.extend("a", ["b0"]),
            lambda scheduler: scheduler.renew("short", FOREVER),
            lambda scheduler: scheduler.stop(),
        ],
        ids=["add", "extend", "renew", "stop"],
    )
    def test_every_change_that_matters_wakes_a_waiting_thread(self, change):
        scheduler = make_scheduler()
        fill(scheduler, "a", items=0, proven=False)
        scheduler.add("short", ["b0"], lease_until=0.0)
        got = []
        thread = threading.Thread(target=lambda: got.append(scheduler.wait_take(time.monotonic, 30)))
        thread.start()

        change(scheduler)
        thread.join(10)

        assert not thread.is_alive()
        assert got in (["b0"], [None])

    def test_returning_a_lane_wakes_no_thread_and_taking_one_wakes_one_for_the_rest(self):
        scheduler = make_scheduler()
        woken = scheduler._changed = Woken(scheduler._lock)
        scheduler._asleep = 1
        fill(scheduler, "a", proven=False)
        woken.count = 0

        assert scheduler.wait_take(time.monotonic, 30) == "a0"
        assert woken.count == 1
        scheduler.done("a", ok=True, seconds=0.01, now=time.monotonic())
        assert woken.count == 1

    def test_no_thread_is_woken_if_none_sleeps(self):
        scheduler = make_scheduler()
        woken = scheduler._changed = Woken(scheduler._lock)
        fill(scheduler, "a", proven=False)

        assert scheduler.wait_take(time.monotonic, 30) == "a0"
        assert woken.count == 0

    def test_many_threads_take_each_item_once_and_none_is_left_waiting(self):
        scheduler = make_scheduler(cap=3, concurrency=8)
        lanes = [f"lane{n}" for n in range(20)]
        taken: list[tuple[str, int]] = []
        most = Counter()

        def send():
            while (item := scheduler.wait_take(time.monotonic, 30)) is not None:
                key, number = item
                most[key] = max(most[key], scheduler.in_flight_of(key))
                taken.append(item)
                last = len(taken) == 2000
                scheduler.done(
                    key, ok=number % 7 != 0, seconds=0.01, now=time.monotonic(), suspect=number % 5 == 0
                )
                if last:
                    scheduler.stop()

        threads = [threading.Thread(target=send) for _ in range(8)]
        for thread in threads:
            thread.start()
        for key in lanes:
            scheduler.add(key, [(key, n) for n in range(100)], lease_until=FOREVER)
        for thread in threads:
            thread.join(30)

        assert not any(thread.is_alive() for thread in threads)
        assert sorted(taken) == sorted((key, n) for key in lanes for n in range(100))
        assert max(most.values()) <= 3
        assert scheduler.in_flight == 0


KEYS = st.sampled_from(["a", "b", "c", "d", "e"])
CAP, CONCURRENCY, ATTEMPT = 3, 6, 20.0


def test_a_lane_that_turns_out_slow_takes_no_slot_that_a_new_one_waits_for():
    """What it gives back itself is handed out as any other: to new lanes first."""
    scheduler = KeyedScheduler(cap=CAP, concurrency=CONCURRENCY, slow_share=0.5, attempt=ATTEMPT)
    for key, count in {"d": 2, "a": 1, "c": 1, "b": 1}.items():
        scheduler.add(key, [key] * count, lease_until=1e6)

    turns = []
    for _ in range(4):
        turns.append(scheduler.take(1000.0))
        scheduler.done(turns[-1], ok=False, seconds=5.0, now=1000.0, suspect=True)

    assert turns == ["d", "a", "c", "b"]


class Machine(RuleBasedStateMachine):
    """Any order of calls against plain lists of what waits and what is in flight."""

    def __init__(self):
        super().__init__()
        self.scheduler = KeyedScheduler(cap=CAP, concurrency=CONCURRENCY, slow_share=0.5, attempt=ATTEMPT)
        self.now = 0.0
        self.numbers = itertools.count()
        self.waiting: dict[str, list] = {}
        self.flying: list[tuple[str, int]] = []
        self.leases: dict[str, float] = {}
        self.caps: dict[str, int] = {}
        self.rates: dict[str, float | None] = {}

    def items(self, key, count):
        return [(key, next(self.numbers)) for _ in range(count)]

    @rule(
        key=KEYS,
        count=st.integers(0, 5),
        rate=st.none() | st.sampled_from([0.5, 2.0, 100.0]),
        suspect=st.booleans(),
        cap=st.none() | st.integers(1, 5),
        lease=st.sampled_from([5.0, 30.0, 1000.0]),
    )
    def add(self, key, count, rate, suspect, cap, lease):
        items = self.items(key, count)
        self.scheduler.add(key, items, rate=rate, suspect=suspect, cap=cap, lease_until=self.now + lease)
        self.waiting.setdefault(key, []).extend(items)
        self.leases[key], self.caps[key], self.rates[key] = self.now + lease, min(cap or CAP, CAP), rate

    @rule(key=KEYS, count=st.integers(1, 5))
    def extend(self, key, count):
        items = self.items(key, count)
        if key in self.waiting:
            self.scheduler.extend(key, items)
            self.waiting[key].extend(items)
        else:
            with pytest.raises(KeyError):
                self.scheduler.extend(key, items)

    @rule(key=KEYS, lease=st.sampled_from([5.0, 30.0, 1000.0]))
    def renew(self, key, lease):
        if key in self.waiting:
            self.scheduler.renew(key, self.now + lease)
            self.leases[key] = self.now + lease

    @rule(key=KEYS)
    def remove(self, key):
        assert self.scheduler.remove(key) == self.waiting.pop(key, [])

    @rule()
    def take(self):
        item = self.scheduler.take(self.now)
        if item is None:
            return
        key = item[0]
        assert item == self.waiting[key].pop(0)
        assert self.leases[key] >= self.now + ATTEMPT
        self.flying.append(item)
        assert sum(other == key for other, _ in self.flying) <= self.caps[key]

    @precondition(lambda self: self.flying)
    @rule(
        data=st.data(),
        ok=st.booleans(),
        suspect=st.booleans(),
        seconds=st.sampled_from([0.01, 0.01, 0.01, 5.0]),
    )
    def done(self, data, ok, suspect, seconds):
        item = data.draw(st.sampled_from(self.flying))
        self.flying.remove(item)
        self.scheduler.done(item[0], ok=ok, seconds=seconds, now=self.now, suspect=suspect and not ok)

    @rule(seconds=st.sampled_from([0.01, 0.5, 2.0, 10.0]))
    def pass_time(self, seconds):
        self.now += seconds

    @rule()
    def everyone_is_served_within_a_round(self):
        """With all slots free, good leases and no rate in the way, N lanes need at most N turns each."""
        self.now += 1000.0
        for key in self.waiting:
            self.scheduler.add(key, [], lease_until=self.now + 1e6)
            self.leases[key], self.caps[key], self.rates[key] = self.now + 1e6, CAP, None
        while self.flying:
            self.scheduler.done(self.flying.pop()[0], ok=True, seconds=0.01, now=self.now)
        hungry = {key for key, items in self.waiting.items() if items}
        for _ in range(len(hungry)):
            item = self.scheduler.take(self.now)
            assert item is not None, "nothing is in flight and work waits, yet no lane may send"
            assert item == self.waiting[item[0]].pop(0)
            hungry.discard(item[0])
            self.scheduler.done(item[0], ok=False, seconds=5.0, now=self.now, suspect=True)
        assert not hungry

    @invariant()
    def counts_agree(self):
        assert self.scheduler.queued == sum(map(len, self.waiting.values()))
        assert self.scheduler.in_flight == len(self.flying)
        for key in "abcde":
            assert self.scheduler.queued_of(key) == len(self.waiting.get(key, ()))
            assert self.scheduler.in_flight_of(key) == sum(other == key for other, _ in self.flying)

    @invariant()
    def the_books_balance(self):
        """Inside: the share is what its lanes hold, each lane stands in one place, none waits in vain."""
        scheduler = self.scheduler
        lanes, places = list(scheduler.known.values()), scheduler._places
        held = {lane.key: lane.in_flight + (lane.key in places.ready.lanes) for lane in lanes}
        suspect = {lane.key for lane in lanes if lane.probation is Probation.SUSPECT}
        new = {lane.key for lane in lanes if lane.probation is Probation.NEW}
        assert places.slots[Probation.NEW] == sum(held[key] for key in new | suspect)
        assert places.slots[Probation.SUSPECT] == sum(held[key] for key in suspect)
        parked = {probation: set(waiting.lanes) for probation, waiting in places.parked.items()}
        for probation, keys in parked.items():
            assert not keys or not places.has_room(probation)
            assert keys <= (new if probation is Probation.NEW else suspect)
        for lane in lanes:
            assert (lane.where.name == "READY") == (lane.key in places.ready.lanes)
            assert (lane.where.name == "PARKED") == any(lane.key in keys for keys in parked.values())


Machine.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestAnyOrder = Machine.TestCase


@settings(max_examples=150, stateful_step_count=80, deadline=None)
class Dying(RuleBasedStateMachine):
    """Lanes that never answer, coming and going: the share holds whatever they do."""

    def __init__(self):
        super().__init__()
        self.scheduler = KeyedScheduler(cap=CAP, concurrency=CONCURRENCY, slow_share=0.5)
        self.flying: list[str] = []

    @rule(key=KEYS, suspect=st.booleans())
    def add(self, key, suspect):
        self.scheduler.add(key, [key] * 3, suspect=suspect, lease_until=FOREVER)

    @rule(key=KEYS)
    def remove(self, key):
        self.scheduler.remove(key)

    @rule()
    def take(self):
        if key := self.scheduler.take(0.0):
            self.flying.append(key)

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), slow=st.booleans())
    def fail(self, data, slow):
        key = data.draw(st.sampled_from(self.flying))
        self.flying.remove(key)
        self.scheduler.done(key, ok=False, seconds=9.0 if slow else 0.01, now=0.0, suspect=slow)

    @invariant()
    def the_share_holds(self):
        assert len(self.flying) <= CONCURRENCY // 2


TestDying = Dying.TestCase


class TestHalting:
    def test_a_lane_that_is_halted_starts_nothing_until_it_is_released(self):
        scheduler = make_scheduler()
        fill(scheduler, "ab", items=10)
        scheduler.done(scheduler.take(0.0)[0], ok=False, seconds=0.01, now=0.0, halt=True)

        assert {item[0] for item in drain(scheduler)} == {"b"}
        scheduler.release("a")
        assert {item[0] for item in drain(scheduler)} == {"a"}

    def test_a_streak_of_failures_halts_and_then_each_further_one_does(self):
        scheduler = make_scheduler(streak=3, cap=1)
        fill(scheduler, "a", items=10, proven=False)
        for _ in range(3):
            scheduler.done(scheduler.take(0.0)[0], ok=False, seconds=0.01, now=0.0)
        assert scheduler.take(0.0) is None

        scheduler.release("a")
        scheduler.done(scheduler.take(0.0)[0], ok=False, seconds=0.01, now=0.0)
        assert scheduler.take(0.0) is None

        scheduler.release("a")
        scheduler.done(scheduler.take(0.0)[0], ok=True, seconds=0.01, now=0.0)
        assert scheduler.take(0.0) == "a5"

    def test_a_halted_lane_holds_no_slot_of_the_share(self):
        scheduler = make_scheduler(concurrency=2, slow_share=0.5)
        fill(scheduler, "a", items=3, proven=False)
        scheduler.done(scheduler.take(0.0)[0], ok=False, seconds=0.01, now=0.0, halt=True)
        fill(scheduler, "b", items=1, proven=False)

        assert drain(scheduler) == ["b0"]


class TestPausing:
    def test_nothing_starts_between_pause_and_resume(self):
        scheduler = make_scheduler()
        fill(scheduler, "a", items=2)
        scheduler.extend("a", ["x", "y"])
        scheduler.pause()
        assert scheduler.take(0.0) is None

        scheduler.resume()

        assert scheduler.take(0.0) == "x"

    def test_items_that_are_dropped_do_not_start(self):
        scheduler = make_scheduler()
        scheduler.add("a", ["a0", "a1", "a2"], lease_until=FOREVER)

        assert scheduler.drop("a", {"a1", "elsewhere"}) == ["a1"]

        assert drain(scheduler) == ["a0", "a2"]
        assert scheduler.queued == 0

    def test_dropping_the_last_item_frees_the_slot_of_the_share(self):
        scheduler = make_scheduler(concurrency=2, slow_share=0.5)
        fill(scheduler, "ab", items=1, proven=False)

        scheduler.drop("a", {"a0"})

        assert drain(scheduler) == ["b0"]


class TestTrust:
    def test_a_trusted_lane_does_not_wait_for_the_share(self):
        scheduler = make_scheduler(concurrency=2, slow_share=0.5)
        fill(scheduler, "a", items=5, proven=False)
        scheduler.take(0.0)
        scheduler.add("b", ["b0"], lease_until=FOREVER, trusted=True)

        assert scheduler.take(0.0) == "b0"

    def test_a_rate_goes_on_where_another_worker_left_it(self):
        scheduler = make_scheduler()
        scheduler.add("a", ["a0"], lease_until=FOREVER, rate=1.0, not_before=100.5)

        assert scheduler.take(100.0) is None
        assert scheduler.take(100.5) == "a0"

    def test_what_could_start_is_counted_without_lanes_that_wait(self):
        scheduler = make_scheduler(concurrency=8, slow_share=0.25)
        fill(scheduler, "abc", items=5, proven=False)

        assert scheduler.startable() == (4, 10)  # two of the share's two slots; c is parked


class TestBarring:
    def test_a_barred_standing_starts_nothing_and_the_others_go_on(self):
        scheduler = make_scheduler()
        fill(scheduler, "a", items=10)
        fill(scheduler, "b", items=10, proven=False, suspect=True)
        scheduler.block(Probation.SUSPECT)

        assert {item[0] for item in drain(scheduler)} == {"a"}
        assert scheduler.queued_of("b") == 10

    def test_one_that_becomes_suspect_is_barred_too(self):
        scheduler = make_scheduler()
        fill(scheduler, "a", items=10)
        scheduler.block(Probation.SUSPECT)
        scheduler.take(0.0)
        scheduler.done("a", ok=False, seconds=15.0, now=0.0, suspect=True)

        assert drain(scheduler) == []

    def test_barring_the_new_leaves_the_proven(self):
        scheduler = make_scheduler()
        fill(scheduler, "a", items=10)
        fill(scheduler, "b", items=10, proven=False)
        scheduler.block(Probation.NEW)

        assert {item[0] for item in drain(scheduler)} == {"a"}


class TestOwners:
    def test_owners_take_turns_whatever_the_number_of_their_lanes(self):
        scheduler = make_scheduler(cap=1, concurrency=100)
        many = [f"a{n}" for n in range(50)]
        for key in many:
            scheduler.add(key, [key], lease_until=FOREVER, owner="A", trusted=True)
        scheduler.add("b", ["b"] * 3, lease_until=FOREVER, owner="B", trusted=True)

        order = [scheduler.take(0.0) for _ in range(3)]
        scheduler.done("b", ok=True, seconds=0.01, now=0.0)

        assert order == ["a0", "b", "a1"]
        assert "b" in [scheduler.take(0.0), scheduler.take(0.0)]

    def test_one_owner_alone_uses_every_slot(self):
        scheduler = make_scheduler(cap=1, concurrency=32)
        for number in range(100):
            scheduler.add(f"a{number}", ["x"], lease_until=FOREVER, owner="A", trusted=True)

        assert len(drain(scheduler)) == 100

    def test_a_new_one_of_another_owner_does_not_wait_for_a_hundred_that_hang(self):
        scheduler = make_scheduler(concurrency=32)
        for number in range(100):
            scheduler.add(f"a{number}", ["x"] * 5, lease_until=FOREVER, owner="A")
        assert len(drain(scheduler)) == 16

        scheduler.add("b", ["b0", "b1", "b2"], lease_until=FOREVER, owner="B")

        assert drain(scheduler) == ["b0"]
        scheduler.done("b", ok=True, seconds=0.01, now=0.0)
        assert drain(scheduler) == ["b1", "b2"]

    def test_a_thread_is_left_for_those_that_answer_however_many_owners_hang(self):
        scheduler = make_scheduler(cap=1, concurrency=32)
        for number in range(100):
            scheduler.add(f"a{number}", ["x"], lease_until=FOREVER, owner=str(number))

        assert len(drain(scheduler)) == 28

    def test_what_has_been_under_way_for_long_leaves_room_for_new_ones_before_it_ends(self):
        scheduler = make_scheduler(cap=1, concurrency=32)
        for number in range(100):
            scheduler.add(f"a{number}", ["x"], lease_until=FOREVER, owner="A")
        hanging = [f"a{number}" for number in range(len(drain(scheduler)))]

        scheduler.suspect(hanging)

        assert len(drain(scheduler)) == 4
        scheduler.suspect([f"a{number}" for number in range(20)])
        assert drain(scheduler) == []

    def test_a_lane_that_has_been_slow_all_along_begins_nothing_more(self):
        scheduler = make_scheduler(cap=4, concurrency=32)
        scheduler.add("a", ["x"] * 10, lease_until=FOREVER, owner="A", trusted=True)
        assert len(drain(scheduler)) == 2

        scheduler.suspect(["a"])
        scheduler.done("a", ok=False, seconds=3.0, now=3.0)

        assert drain(scheduler, 3.0) == []

    def test_waiting_owners_are_let_in_in_turns(self):
        scheduler = make_scheduler(cap=1, concurrency=8, slow_share=0.5)
        for owner in "AB":
            for number in range(4):
                key = f"{owner}{number}"
                scheduler.add(key, [key], lease_until=FOREVER, owner=owner, suspect=True)
        first = drain(scheduler)
        order = []
        while first:
            scheduler.done(first[0], ok=False, seconds=5.0, now=0.0, suspect=True)
            order.append(first.pop(0)[0])
            first += drain(scheduler)

        assert sorted(order) == list("AAAABBBB")
        assert "B" in order[:4]


class TestBeingToldToWait:
    def test_nothing_starts_before_and_others_are_not_held_up(self):
        scheduler = make_scheduler()
        fill(scheduler, "ab", items=10)
        assert scheduler.take(0.0)[0] == "a"

        scheduler.done("a", ok=False, seconds=0.01, now=0.0, wait=2.0)

        assert {item[0] for item in drain(scheduler)} == {"b"}
        assert drain(scheduler, 1.9) == []
        assert scheduler.next_start("a") == 2.0
        assert {item[0] for item in drain(scheduler, 2.0)} == {"a"}

    def test_it_costs_neither_slots_nor_patience(self):
        scheduler = make_scheduler(streak=3)
        fill(scheduler, "a", items=50)
        for number in range(10):
            now = float(number)
            item = scheduler.take(now)
            scheduler.done("a", ok=False, seconds=0.01, now=now, wait=1.0)
            assert scheduler.put_back("a", item)
            scheduler.release("a")

        assert len(drain(scheduler, 20.0)) == 4

    def test_what_is_put_back_comes_first(self):
        scheduler = make_scheduler()
        fill(scheduler, "a", items=5, proven=False)
        item = scheduler.take(0.0)
        scheduler.done("a", ok=False, seconds=0.01, now=0.0, wait=1.0)

        assert scheduler.put_back("a", item)
        assert scheduler.take(1.0) == item == "a0"

    def test_a_lane_that_was_removed_takes_nothing_back(self):
        scheduler = make_scheduler()
        fill(scheduler, "a", items=2, proven=False)
        item = scheduler.take(0.0)
        scheduler.remove("a")
        scheduler.done("a", ok=False, seconds=0.01, now=0.0, wait=1.0)

        assert not scheduler.put_back("a", item)

    def test_a_longer_wait_is_not_shortened_by_a_new_rate(self):
        scheduler = make_scheduler()
        fill(scheduler, "a", items=5, proven=False)
        scheduler.hold("a", 10.0)
        scheduler.set_terms("a", rate=100.0)

        assert drain(scheduler, 9.9) == []
        assert scheduler.take(10.0) == "a0"
