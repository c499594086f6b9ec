"""What the choice among replicas promises, by the simulation of `bench/routing.py`: no clock, so it may assert
figures."""

import dataclasses
import importlib.util
import statistics
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench" / "routing.py"


@pytest.fixture(scope="module")
def bench():  # type: ignore[no-untyped-def]  # a module
    spec = importlib.util.spec_from_file_location("bench_routing", BENCH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(BENCH.parent))  # for the modules beside it
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(BENCH.parent))
    return module


def of(bench, name: str, policy: str, runs: int = 2, seconds: float = 60.0):  # type: ignore[no-untyped-def]
    [scenario] = [one for one in bench.SCENARIOS if one.name == name]
    return bench.run(scenario, policy, seconds=seconds, runs=runs)


def test_without_shared_prefixes_first_tokens_come_sooner_than_by_chance_or_by_calls_in_flight(bench) -> None:
    name = "16 replicas, no shared prefixes"
    ours, blind, two = (of(bench, name, policy) for policy in ("ours", "random", "two choices"))

    assert ours.quantile(0.99) < 0.65 * blind.quantile(0.99)
    assert ours.quantile(0.99) < 0.8 * two.quantile(0.99)
    assert statistics.fmean(ours.uneven) < statistics.fmean(blind.uneven)


def test_conversations_find_their_replica_again(bench) -> None:
    ours, without, turns = (
        of(bench, "16 replicas, chats", policy) for policy in ("ours", "ours without prefixes", "round robin")
    )

    assert ours.hit > 0.65
    assert ours.hit > 1.6 * without.hit
    assert statistics.fmean(ours.first_s) < 0.6 * statistics.fmean(turns.first_s)
    assert ours.quantile(0.99) < 0.7 * turns.quantile(0.99)


def test_a_prefix_that_all_have_does_not_make_a_replica_hot(bench) -> None:
    name = "16 replicas, one system prompt"
    ours, two = (of(bench, name, policy) for policy in ("ours", "two choices"))

    assert ours.quantile(0.99) <= two.quantile(0.99)
    assert statistics.fmean(ours.uneven) < 1.1 * statistics.fmean(two.uneven)


@pytest.mark.parametrize("trace", ["no shared prefixes", "chats"])
def test_one_five_times_slower_sheds_more_than_half_within_five_seconds_and_is_back_when_it_recovers(
    bench, trace: str
) -> None:
    name = f"8 replicas, {trace}, one 5x slower from 20 s to 60 s"
    ours, blind = (of(bench, name, policy, runs=5, seconds=90.0) for policy in ("ours", "random"))
    before = ours.share(10, 20, 8)

    assert ours.share(25, 30, 8) < before / 2
    assert ours.share(30, 60, 8) < before / 3
    assert ours.share(70, 90, 8) > 0.7 * before
    assert ours.quantile(0.99) < blind.quantile(0.99) / 4


def test_measured_latency_is_what_finds_the_slow_one_where_slots_are_plenty(bench) -> None:
    name = "8 replicas, chats, one 5x slower from 20 s to 60 s"
    ours, unmeasured = (of(bench, name, policy, runs=3) for policy in ("ours", "ours without latency"))

    assert ours.share(25, 60, 8) < 0.7 * unmeasured.share(25, 60, 8)


def test_a_replica_that_dies_costs_a_few_retries_and_no_call(bench) -> None:
    ours = of(bench, "8 replicas, chats, one dies at 30 s", "ours", runs=3, seconds=100.0)

    assert 0 < ours.retried < 0.02 * ours.choices
    assert ours.failed == 0
    assert ours.share(31, 50, 8) < 0.25  # its probes
    assert ours.share(85, 100, 8) > 0.7  # it came back at 50 s; its next try is half a minute later at most


def test_hundreds_of_replicas_are_as_even_as_a_few(bench) -> None:
    [many] = [one for one in bench.SCENARIOS if one.name == "4,000 replicas, no shared prefixes"]
    scenario = dataclasses.replace(many, replicas=400)
    ours, blind = (bench.run(scenario, policy) for policy in ("ours", "random"))

    assert statistics.fmean(ours.uneven) < statistics.fmean(blind.uneven)
    assert ours.quantile(0.99) < 0.7 * blind.quantile(0.99)
