"""The report of an installation, and the self-test against broken parts."""

import pathlib
import subprocess
import sys

import jax
import pytest

from vitjax import step as step_lib
from vitjax.checkpoint import checkpointer
from vitjax.doctor import __main__ as doctor
from vitjax.doctor import installation, self_test

FINE = {"jax": "0.10.2", "jaxlib": "0.10.2", "numpy": "2.4.6"}


@pytest.mark.parametrize(
  ("changes", "facts", "message"),
  [
    ({"jaxlib": "0.10.1"}, {}, "jax 0.10.2 and jaxlib 0.10.1 differ: pip ins"),
    ({"numpy": "1.26.4"}, {}, "numpy 1.26.4 is too old"),
    (
      {"tensorflow": "2.21.0", "tensorflow-cpu": "2.21.0"},
      {},
      "tensorflow and tensorflow-cpu are both installed",
    ),
    (
      {"opencv-python": "4", "opencv-python-headless": "5"},
      {},
      "opencv-python and opencv-python-headless are both installed",
    ),
    (
      {"jax-cuda13-plugin": "0.9.0"},
      {},
      'jax-cuda13-plugin 0.9.0 is not for jaxlib 0.10.2: pip install "jax[cuda1'
      "3]==0.10.2",
    ),
    ({}, {"gpus": ["NVIDIA H100"]}, "a GPU (NVIDIA H100) that JAX does not"),
    ({}, {"has_tpu": True}, "There is a TPU that JAX does not use"),
  ],
)
def test_known_conflicts(changes, facts, message):
  assert not installation.conflicts(FINE, backend="cpu")
  (found,) = installation.conflicts({**FINE, **changes}, backend="cpu", **facts)
  assert message in found


def test_accelerators_that_are_used_are_no_conflict():
  plugin = {"jax-cuda13-plugin": FINE["jaxlib"]}
  versions = {**FINE, **plugin}
  assert not installation.conflicts(
    versions, backend="gpu", gpus=["NVIDIA H100"]
  )
  assert not installation.conflicts(FINE, backend="tpu", has_tpu=True)


def test_data_sets(tmp_path, monkeypatch):
  for name in ("cifar10/3.0.2", "a/config/1.0.0", "half/1.0.0"):
    (tmp_path / name).mkdir(parents=True)
    if name != "half/1.0.0":
      (tmp_path / name / "dataset_info.json").touch()
  monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
  monkeypatch.setattr(installation, "_FASHION_MNIST", tmp_path / "gone")
  assert installation.data_sets() == ["a/config/1.0.0", "cifar10/3.0.2"]


def test_report_names_no_place(monkeypatch):
  monkeypatch.setattr(installation, "pip_check", lambda: ["x 1 requires y"])
  home = str(pathlib.Path.home())
  monkeypatch.setenv("XLA_FLAGS", f"--xla_dump_to={home}/dump")
  lines, ok = doctor.report()
  assert ok
  text = "\n".join(lines)
  assert f"| jax | {jax.__version__} |" in text
  assert "| devices | 8 x cpu |" in text
  assert "- pip check: x 1 requires y" in text
  assert "`--xla_dump_to=~/dump`" in text
  assert home not in text and str(pathlib.Path.cwd()) not in text


@pytest.mark.slow
def test_self_test_passes():
  lines, passed = doctor.self_test()
  assert passed, lines
  assert lines[0].startswith("Self-test passed in ")
  assert "parameters to the bit" in lines[0]


def damaged(monkeypatch):
  """A checkpoint gives other numbers back."""
  restore = checkpointer.Checkpointer.restore

  def wrong(self, shapes):
    step, items, info = restore(self, shapes)
    items["params"] = jax.tree.map(lambda x: x * 1.01, items["params"])
    return step, items, info

  monkeypatch.setattr(checkpointer.Checkpointer, "restore", wrong)
  return "differs from what was saved", "gives different parameters"


def no_updates(monkeypatch):
  """The optimizer changes nothing."""
  apply_updates = step_lib.optax.apply_updates
  monkeypatch.setattr(
    step_lib.optax,
    "apply_updates",
    lambda p, u: apply_updates(p, jax.tree.map(jax.numpy.zeros_like, u)),
  )
  return ("does not lower the loss",)


def crash(monkeypatch):
  def save(*_, **__):
    raise OSError("the disk is full")

  monkeypatch.setattr(checkpointer.Checkpointer, "save", save)
  return ("OSError: the disk is full",)


@pytest.mark.slow
@pytest.mark.parametrize("break_it", [damaged, no_updates, crash])
def test_self_test_notices(monkeypatch, break_it):
  messages = break_it(monkeypatch)
  lines, passed = doctor.self_test()
  assert not passed and lines[0].startswith("**Self-test failed")
  for message in messages:
    assert message in "\n".join(lines)


def test_judge():
  good = [2.3] * 8 + [1.5] * 8
  assert not self_test.judge(good, True, 0.0)
  for losses, restored, difference, message in (
    ([2.3] * 16, True, 0.0, "does not lower the loss"),
    ([2.3] * 15 + [float("nan")], True, 0.0, "not finite"),
    (good, False, 0.0, "differs from what was saved"),
    (good, True, 0.1, "differ by 0.1"),
    (good, True, float("nan"), "differ by nan"),
  ):
    (problem,) = self_test.judge(losses, restored, difference)
    assert message in problem


def test_help_is_quick_and_useful():
  done = subprocess.run(
    [sys.executable, "-X", "importtime", "-m", "vitjax.doctor", "--help"],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0
  assert "Exit codes" in done.stdout and "self_test" in done.stdout
  loaded = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
  assert not loaded & {"jax", "tensorflow", "numpy"}
