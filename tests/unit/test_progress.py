import time

import jax.numpy as jnp
import pytest

from vitjax.run_folder import clock as progress_lib
from vitjax.run_folder.clock import ProfilerWindow, Progress


class _Clock:
  def __init__(self):
    self.now = 1e6

  def __call__(self):
    return self.now


def _progress(clock, **kwargs):
  return Progress(1100, 100, num_devices=4, clock=clock, **kwargs)


def _train(progress, clock, steps, step_seconds=0.5, input_seconds=0.0):
  for step in steps:
    with progress.waiting():
      clock.now += input_seconds
    clock.now += step_seconds - input_seconds
    progress.update(step)


def test_rates_leave_compilation_out():
  clock = _Clock()
  progress = _progress(clock)
  clock.now += 60.0
  progress.update(1)
  assert progress.examples_per_second is None
  assert progress.line(1, loss=2.5) == "step 1/1,100 (0 %) · loss 2.5000"
  _train(progress, clock, range(2, 12))
  assert progress.step_seconds == pytest.approx(0.5)
  assert progress.examples_per_second == pytest.approx(200)
  assert progress.examples_per_second_per_device == pytest.approx(50)


def test_rates_leave_eval_and_checkpoints_out():
  clock = _Clock()
  progress = _progress(clock)
  _train(progress, clock, range(1, 5))
  with progress.paused("eval"):
    clock.now += 100
    with progress.paused("checkpoint"):
      clock.now += 10
    clock.now += 1
  _train(progress, clock, range(5, 11))
  assert progress.examples_per_second == pytest.approx(200)
  assert progress.seconds() == pytest.approx(
    {
      "compile": 0.5,
      "step": 4.5,
      "lost": 0,
      "input": 0,
      "eval": 101,
      "checkpoint": 10,
    }
  )
  # The end of the run is as far away as evals make it.
  assert progress.eta_seconds == pytest.approx(1090 * (4.5 + 111) / 9)


def test_restarts_count_into_goodput():
  clock = _Clock()
  before = {"compile": 4.0, "step": 10.0, "lost": 6.0}
  progress = _progress(clock, before=before, start_step=20)
  assert progress.scalars()["goodput"] == pytest.approx(0.5)
  clock.now += 4.0
  progress.update(21)
  _train(progress, clock, range(22, 34))
  scalars = progress.scalars()
  assert scalars["seconds/compile"] == pytest.approx(8)
  assert scalars["goodput"] == pytest.approx(16 / 30)
  # Rates and the time that is left are those of now.
  assert progress.step_seconds == pytest.approx(0.5)
  assert progress.eta_seconds == pytest.approx((1100 - 33) * 0.5)


def test_time_charged_before_an_exception_is_kept():
  clock = _Clock()
  progress = _progress(clock)
  with pytest.raises(KeyError), progress.paused("eval"):
    clock.now += 3
    raise KeyError
  clock.now += 1
  assert progress.seconds()["eval"] == 3
  assert progress.seconds()["compile"] == 1


def test_rates_follow_the_last_steps():
  clock = _Clock()
  progress = _progress(clock, window_steps=10)
  _train(progress, clock, range(1, 50), step_seconds=5)
  _train(progress, clock, range(50, 60), step_seconds=0.5)
  assert progress.examples_per_second == pytest.approx(200)


def test_the_line_reads_well():
  clock = _Clock()
  progress = _progress(clock, start_step=300)
  _train(progress, clock, range(301, 401), 0.0625, input_seconds=0.0625 / 32)
  assert progress.line(400, {"loss": 0.21341}, lr=9.1e-4) == (
    "step 400/1,100 (36 %) · loss 0.2134 · lr 9.1e-04 · 1,600 images/s · "
    "input wait 3 % · ETA 0:44"
  )
  assert progress.scalars()["input_wait_share"] == pytest.approx(1 / 32)
  with progress.paused("eval"):
    clock.now += 6.25
  assert (
    progress.summary() == "0:12: eval 50 %, step 48 %, input 2 %, compile 0 %"
  )
  assert sum(progress.shares().values()) == pytest.approx(1)


def test_long_durations_have_hours():
  assert progress_lib._duration(3661.4) == "1:01:01"
  assert progress_lib._duration(59.6) == "1:00"


def test_the_wall_clock_does_not_matter(monkeypatch):
  monkeypatch.setattr(time, "time", lambda: pytest.fail("it may jump"))
  progress = Progress(10, 8, num_devices=1)
  progress.update(1)
  time.sleep(0.01)
  progress.update(2)
  assert 0 < progress.examples_per_second <= 800


def test_an_unknown_kind_is_refused():
  with pytest.raises(
    ValueError, match="kind='evals'; use one of compile, input, eval"
  ):
    with Progress(1, 1, num_devices=1).paused("evals"):
      pass


@pytest.mark.parametrize("steps", [range(8), range(4, 6)])
def test_the_profiler_traces_its_window(tmp_path, steps):
  window = ProfilerWindow(tmp_path, first_step=3, num_steps=2)
  states = []
  for step in steps:
    window.update(step, wait_for=jnp.ones(2) + step)
    states.append(window._state)
  window.close()
  window.close()
  if steps.start == 0:
    expected = ["waiting"] * 3 + ["tracing"] * 2 + ["done"] * 3
  else:  # resumed within the window
    expected = ["tracing", "done"]
  assert states == expected
  assert len(list(tmp_path.rglob("*.xplane.pb"))) == 1


def test_no_window_no_profile(tmp_path):
  window = ProfilerWindow(tmp_path, first_step=0, num_steps=0)
  window.update(0)
  window.close()
  assert list(tmp_path.iterdir()) == []
