"""What the loop does in a step: it hands it to the devices, and no more."""

import dataclasses
import functools
import sys

import jax
import pytest

from vitjax import checks, program, train
from vitjax.checkpoint import checkpointer
from vitjax.config import resolving, schema
from vitjax.parallel import sharding
from vitjax.run_folder.reader import read_metrics

TOTAL = 15
EVALS, SAVES = (5, 10, 15), (6, 12, 15)
# Steps after which something needs the arrays that have just been computed.
WAITS = {*EVALS, *SAVES}


def resolve(learning_rate=1e-3, evals=(), **checkpoint) -> schema.RunConfig:
  """A run in which each part of the loop has several turns."""
  pp = "value_range(-1, 1)"
  return resolving.resolve(
    {
      "total_steps": TOTAL,
      "input": {"data": "digits", "batch_size": 16, "pp": pp},
      "model": {"name": "vit", "width": 8, "depth": 0, "num_heads": 1}
      | {"patch_size": 4, "pool_type": "gap"},
      "optim": {"name": "sgd", "learning_rate": learning_rate},
      "evals": {
        "test": {"split": "test[:40]", "pp": pp, "batch_size": 16}
        | {"every_steps": EVALS[0]}
        | dict(evals)
      },
      "checkpoint": {"every_steps": SAVES[0], **checkpoint},
      "report": {"every_steps": 4},
    },
    checks.problems,
  )


class Diary:
  """What happens in a run, in order, as (kind, what).

  - ("step", n): step n was handed to the devices.
  - ("compiled", name): a program was.
  - ("read", "new" or "old"): the host asked for an array that the newest step,
    or one before it, computes, and so waits for that step.
  - ("calls", n): of functions by the loop, since the step before.

  Between the steps that nothing waits for, a number that goes to the devices
  unasked is an error.
  """

  # All ways from an array of several devices to Python and NumPy.
  _READS = (
    *("__array__", "__bool__", "__float__", "__format__", "__index__"),
    *("__int__", "__iter__", "block_until_ready", "item", "tolist"),
  )

  def __init__(self, monkeypatch):
    self.events = []
    self._newest, self._older = {}, {}
    self._calls = 0
    array = type(jax.numpy.zeros(()))
    for name in self._READS:
      monkeypatch.setattr(array, name, self._watched(getattr(array, name)))
    block = self._watched(jax.block_until_ready)
    monkeypatch.setattr(jax, "block_until_ready", block)
    assemble = program.assemble

    def watched_program(*args):
      parts = assemble(*args)
      return dataclasses.replace(parts, train_step=self._step(parts.train_step))

    monkeypatch.setattr(program, "assemble", watched_program)

  def _watched(self, read):
    def watched(tree, *args, **options):
      for x in jax.tree.leaves(tree):
        if id(x) in self._newest:
          self.events.append(("read", "new"))
        elif id(x) in self._older:
          self.events.append(("read", "old"))
      return read(tree, *args, **options)

    return watched

  def _step(self, train_step):
    """The train step, of which the loop compiles and calls a watched one."""
    compiled = None

    def watched_step(state, batch):
      sys.setprofile(None)
      self.events.append(("calls", self._calls))
      results = compiled(state, batch)
      step = len(self.of("step")) + 1
      self.events.append(("step", step))
      # The arrays are kept, so that no other one gets their ids.
      self._older |= self._newest
      self._newest = {id(x): x for x in jax.tree.leaves(results)}
      self._calls = 0
      self.guard("allow" if step in WAITS else "disallow")
      sys.setprofile(self._count)
      return results

    class Lowered:
      def __init__(self, *args):
        self._lowered = train_step.lower(*args)

      def compile(self):
        nonlocal compiled
        compiled = self._lowered.compile()
        watched_step.memory_analysis = compiled.memory_analysis
        return watched_step

    watched_step.lower = Lowered
    return watched_step

  @staticmethod
  def guard(level):
    jax.config.update("jax_transfer_guard_host_to_device", level)

  def _count(self, frame, event, arg):
    del frame, arg
    self._calls += event == "call"

  def note_compilation(self, event, seconds, fun_name="", **_):
    del seconds
    if event == "/jax/core/compile/backend_compile_duration":
      self.events.append(("compiled", fun_name))

  def of(self, kind: str) -> list:
    return [what for k, what in self.events if k == kind]

  def after(self, step: int) -> list:
    """What happened between this step and the next one."""
    start = self.events.index(("step", step)) + 1
    stop = len(self.events)
    if step < TOTAL:
      stop = self.events.index(("step", step + 1))
    return self.events[start:stop]


@pytest.fixture(scope="module")
def diary(tmp_path_factory):
  """Of a run on two devices."""
  workdir = tmp_path_factory.mktemp("train")
  with pytest.MonkeyPatch.context() as monkeypatch:
    make_mesh = functools.partial(sharding.make_mesh, devices=jax.devices()[:2])
    monkeypatch.setattr(sharding, "make_mesh", make_mesh)
    diary = Diary(monkeypatch)
    jax.monitoring.register_event_duration_secs_listener(diary.note_compilation)
    try:
      train.train_and_evaluate(resolve(), workdir)
    finally:
      sys.setprofile(None)
      diary.guard(None)
      jax.monitoring.unregister_event_duration_listener(diary.note_compilation)
  rows = read_metrics(workdir)
  assert [r["step"] for r in rows if "test/loss" in r] == [*EVALS]
  assert [r["step"] for r in rows if "train/loss" in r] == [4, 8, 12, 15]
  assert diary.of("step") == [*range(1, TOTAL + 1)]
  return diary


def test_every_program_is_compiled_once(diary):
  """Those of the steps and of the evaluations, and nothing between them."""
  compiled = diary.of("compiled")
  assert compiled.count("jit(train_step)") == 1
  assert compiled.count("jit(with_count)") == 1
  for step in range(1, TOTAL + 1):
    late = [name for kind, name in diary.after(step) if kind == "compiled"]
    if step == EVALS[0]:
      assert late == ["jit(with_count)"]
    elif step != SAVES[0]:
      assert not late, step


def test_the_host_waits_for_no_step_that_has_just_begun(diary):
  """The metrics of a step are read when the devices have the next one.

  So much waiting is needed: a host that runs ahead fills the devices with
  batches.
  """
  for step in {*range(1, TOTAL)} - WAITS:
    assert ("read", "new") not in diary.after(step), step
    assert diary.after(step).count(("read", "old")) in (0, 5), step
  for step in WAITS:  # what is watched is seen
    assert ("read", "new") in diary.after(step)


def test_the_host_does_little_in_a_step(diary):
  """No more with more parameters: anything of each of them is too much."""
  for step in (2, 3, 4, 7, 8, 13, 14):  # without a report
    ((_, calls),) = [x for x in diary.after(step) if x[0] == "calls"]
    assert 0 < calls < 300, step


@pytest.mark.slow
@pytest.mark.parametrize(
  ("metric", "best"),
  [
    ("balanced_acc", max),
    ("class_ap[3]", max),
    ("auroc", max),
    ("macro_f1", max),
    ("ece", min),
  ],
)
def test_the_best_checkpoint_by_any_metric(tmp_path, metric, best):
  run = resolve(
    0.3,  # at which metrics rise and fall
    {"metrics": ("all",), "calibration": True, "every_steps": 1},
    best_metric=f"test/{metric}",
  )
  train.train_and_evaluate(run, tmp_path)
  values = {
    row["step"]: row[f"test/{metric}"]
    for row in read_metrics(tmp_path)
    if f"test/{metric}" in row
  }
  assert len(values) == TOTAL
  step, *_ = checkpointer.load_params(tmp_path / "checkpoints", step="best")
  assert values[step] == best(values.values())
  assert len({*values.values()}) > 3
