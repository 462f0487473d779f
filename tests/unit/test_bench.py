"""What the benchmarks call slower than before."""

import pytest

from scripts.bench import turns


def row(contestant, **figures):
  return {
    "benchmark": "step",
    "contestant": contestant,
    **{name: turns.summary(values) for name, values in figures.items()},
  }


BEFORE = [
  row("ours", times_linen=[1.2, 1.3, 1.25], seconds=[2.0, 2.1, 2.0]),
  row("linen", times_linen=[1.0, 1.0, 1.0]),
]


def test_a_ratio_below_all_of_before_is_slower():
  now = [row("ours", times_linen=[1.0, 1.1, 1.05])]
  (found,) = turns.slower(now, BEFORE)
  assert found.startswith("step ours times_linen: 1.050, was 1.250")


@pytest.mark.parametrize(
  "ratios",
  [
    pytest.param([1.19, 1.19, 1.26], id="one turn was as fast"),
    pytest.param([1.21, 1.21, 1.22], id="as slow as a turn of before"),
    pytest.param([1.5, 1.6, 1.4], id="faster"),
  ],
)
def test_noise_is_not_slower(ratios):
  assert not turns.slower([row("ours", times_linen=ratios)], BEFORE)


def test_seconds_of_two_runs_are_not_compared():
  now = [row("ours", seconds=[9.0, 9.0, 9.0])]
  assert not turns.slower(now, BEFORE)


def test_ratios_are_taken_within_a_turn():
  found = {"ours": [1.0, 2.0, 4.0], "linen": [2.0, 4.0, 8.0]}
  assert turns.ratios(found, "ours", "linen")["all"] == [2.0, 2.0, 2.0]


def test_contestants_take_turns_and_three_calls_do_not_count():
  order = []
  calls = {name: lambda name=name: order.append(name) for name in "ab"}
  found = turns.seconds(calls, repetitions=2)
  assert order == ["a", "b"] * 5
  assert [len(x) for x in found.values()] == [2, 2]
