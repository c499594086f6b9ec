"""The promises of the fair queue (PROMISES L2), by the simulation of `bench/fairness.py`: no clock, so it may
assert figures."""

from __future__ import annotations

import importlib.util
import statistics
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench" / "fairness.py"
SECONDS = 900.0


@pytest.fixture(scope="module")
def bench():  # type: ignore[no-untyped-def]  # a module
    spec = importlib.util.spec_from_file_location("bench_fairness", BENCH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_one_that_floods_makes_light_users_wait_no_longer_than_a_slot_is_held(bench) -> None:
    senders, slots = bench.SCENARIOS["one floods, five send one at a time, 8 slots"]
    fair = bench.Simulation(senders, slots).run(SECONDS)
    fifo = bench.Simulation(senders, slots, make=bench.Fifo).run(SECONDS)

    assert statistics.quantiles(fair.waits("light"), n=20)[-1] <= fair.hold_s()
    assert statistics.quantiles(fifo.waits("light"), n=20)[-1] > 4 * fair.hold_s()
    assert fair.throughput() >= 0.97 * fifo.throughput()


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(
    "name",
    [
        "one floods, five send one at a time, 2 slots",
        "all flood: few, many, long, not streamed",
        "weights 1, 2, 4",
    ],
)
def test_those_that_wait_get_the_same_by_weight(bench, name: str, seed: int) -> None:
    senders, slots = bench.SCENARIOS[name]
    fair = bench.Simulation(senders, slots, seed).run(SECONDS)

    assert fair.jain([sender.owner for sender in senders]) >= 0.95
    assert fair.gap() <= fair.bound()
    assert fair.gap() <= fair.bound() / 3  # expectations charged at the start: far better than the bound


def test_first_come_first_served_would_fail_these_promises(bench) -> None:
    senders, slots = bench.SCENARIOS["all flood: few, many, long, not streamed"]
    fifo = bench.Simulation(senders, slots, make=bench.Fifo).run(SECONDS)

    assert fifo.jain([sender.owner for sender in senders]) < 0.8
    assert fifo.gap() > fifo.bound()


@pytest.mark.parametrize(
    "name",
    [
        "one floods, five send one at a time, 8 slots",
        "all flood: few, many, long, not streamed",
        "weights 1, 2, 4",
        "twenty at once under 2 calls per second, 16 slots",
    ],
)
def test_expected_waits_are_at_most_a_quarter_off_under_steady_load(bench, name: str) -> None:
    senders, slots = bench.SCENARIOS[name]
    run = bench.Simulation(senders, slots).run(SECONDS)

    assert statistics.median(run.errors(at_entry=True, warm_s=SECONDS / 10)) <= 0.25
    assert statistics.median(run.errors(at_entry=False, warm_s=SECONDS / 10)) <= 0.25


def test_99_percent_of_the_refused_start_when_they_come_back_as_told(bench) -> None:
    refused, started = bench.returners(range(1, 31))

    assert refused > 300
    assert started / refused >= 0.99


def test_a_limit_is_used_up_and_slows_nobody_else(bench) -> None:
    senders, slots = bench.SCENARIOS["twenty at once under 2 calls per second, 16 slots"]
    run = bench.Simulation(senders, slots).run(100.0)

    assert 198 <= len(run.waits("limited")) <= 202
    assert max(run.waits("other")) == 0.0
