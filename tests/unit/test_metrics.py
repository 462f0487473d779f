import json
import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitjax.run_folder.reader import read_metrics, seconds_spent
from vitjax.run_folder.writer import MetricsError, MetricsWriter


def _writer(workdir, **kwargs):
  return MetricsWriter(workdir, **kwargs)


def _loss(step):
  return np.float32(1) / np.float32(step + 3)


def _run(workdir, steps, start_step=0):
  with _writer(workdir, start_step=start_step) as writer:
    for step in steps:
      writer.write(step, {"train/loss": _loss(step), "epoch": step / 7})


def test_floats_read_back_bit_for_bit(tmp_path):
  values = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0, 2.0**53 + 2]
  values += [float(np.float32(0.1)), float(jnp.bfloat16(0.1))]
  with _writer(tmp_path) as writer:
    for step, value in enumerate(values):
      writer.write(step, {"v": value})
  read = [row["v"] for row in read_metrics(tmp_path)]
  assert [v.hex() for v in read] == [v.hex() for v in values]


def test_kinds_of_scalars(tmp_path):
  with _writer(tmp_path) as writer, jax.transfer_guard("disallow"):
    writer.write(
      np.int64(3),
      {
        "device": jax.device_put(np.float32(0.5)),
        "bf16": jax.device_put(jnp.bfloat16.dtype.type(0.25)),
        "count": np.int32(7),
        "one": np.ones((1, 1)),
      },
    )
  text = (tmp_path / "metrics.jsonl").read_text()
  assert (
    text == '{"step": 3, "device": 0.5, "bf16": 0.25, "count": 7, "one": 1.0}\n'
  )


def test_what_is_not_a_finite_number_is_still_json(tmp_path):
  with _writer(tmp_path) as writer:
    writer.write(1, {"a": math.nan, "b": np.float32("inf"), "c": -math.inf})
  text = (tmp_path / "metrics.jsonl").read_text()
  assert text == '{"step": 1, "a": "nan", "b": "inf", "c": "-inf"}\n'
  (row,) = read_metrics(tmp_path / "metrics.jsonl")
  assert math.isnan(row["a"]) and row["b"] == math.inf == -row["c"]


@pytest.mark.parametrize("value", [np.ones(2), "text", None, 1j, np.array("x")])
def test_what_is_no_scalar_is_refused(tmp_path, value):
  with _writer(tmp_path) as writer:
    with pytest.raises(TypeError, match="metric 'm' is not one number"):
      writer.write(1, {"m": value})
    with pytest.raises(ValueError, match="'step' is an argument"):
      writer.write(1, {"step": 1})


def test_a_resumed_run_ends_with_the_same_bytes(tmp_path):
  _run(tmp_path / "straight", range(1, 11))
  expected = (tmp_path / "straight" / "metrics.jsonl").read_bytes()
  # Killed after step 8 with half a line of step 9; resumed from step 5.
  _run(tmp_path / "killed", range(1, 9))
  file = tmp_path / "killed" / "metrics.jsonl"
  file.write_bytes(file.read_bytes() + b'{"step": 9, "train/lo')
  _run(tmp_path / "killed", range(6, 11), start_step=5)
  assert file.read_bytes() == expected
  assert sorted(p.name for p in file.parent.iterdir()) == [
    "metrics.jsonl",
    "timing.jsonl",
  ]


def test_a_torn_line_of_an_early_step_is_dropped_too(tmp_path):
  # The line is whole JSON by chance: only the newline is missing.
  (tmp_path / "metrics.jsonl").write_text('{"step": 1, "a": 1}\n{"step": 2}')
  _writer(tmp_path, start_step=5).close()
  assert read_metrics(tmp_path) == [{"step": 1, "a": 1}]


def test_a_fresh_start_does_not_destroy_an_old_record(tmp_path):
  _run(tmp_path, range(3))
  before = (tmp_path / "metrics.jsonl").read_bytes()
  _run(tmp_path, range(1))
  assert len(read_metrics(tmp_path)) == 1
  assert (tmp_path / "metrics.jsonl.old").read_bytes() == before


def test_reading_a_run_under_way(tmp_path):
  path = tmp_path / "metrics.jsonl"
  path.write_text('{"step": 1}\n{"st')
  assert read_metrics(path) == [{"step": 1}]
  path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
  with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2 is damaged: "):
    read_metrics(path)


def test_timing_stays_out_of_the_record(tmp_path):
  with _writer(tmp_path) as writer:
    writer.write(1, {"train/loss": 2.0})
    writer.write_timing(1, {"step_seconds": 0.5})
  assert read_metrics(tmp_path) == [{"step": 1, "train/loss": 2.0}]
  assert read_metrics(tmp_path / "timing.jsonl") == [
    {"step": 1, "step_seconds": 0.5}
  ]


def test_the_time_after_the_last_checkpoint_is_lost(tmp_path):
  assert seconds_spent(tmp_path, 0) == {}

  def process(start_step, spent, **by_step):
    before = seconds_spent(tmp_path, start_step)
    assert before == pytest.approx(spent)
    with _writer(tmp_path, start_step=start_step) as writer:
      for step, seconds in by_step.items():
        row = before | {"compile": 1.0, "step": seconds}
        row = {f"seconds/{kind}": x for kind, x in row.items()}
        writer.write_timing(int(step[1:]), {"step_seconds": 0.1, **row})

  # Killed after step 30, before the first checkpoint; it starts again, is
  # killed after step 50, and goes on from step 20.
  process(0, {}, s10=1.0, s30=3.0)
  process(0, {"lost": 4.0}, s20=2.0, s50=5.5)
  process(20, {"compile": 1.0, "step": 2.0, "lost": 4.0 + 3.5}, s60=3.0)


def test_lines_are_visible_at_once(tmp_path):
  with _writer(tmp_path) as writer:
    writer.write(1, {"a": 1})
    assert read_metrics(tmp_path) == [{"step": 1, "a": 1}]


def test_only_the_main_process_writes(tmp_path):
  with MetricsWriter(tmp_path / "w", is_main=False) as writer:
    writer.write(1, {"a": 1})
    writer.write_timing(1, {"a": 1})
    writer.flush()
  assert not (tmp_path / "w").exists()


def test_a_record_that_cannot_be_written_is_one_clear_error(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(MetricsError, match=r"metrics\.jsonl cannot be"):
    _writer(tmp_path / "file")
  with pytest.raises(ValueError, match="local or mounted directory"):
    _writer("gs://bucket/run")


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_a_full_disk_is_one_clear_error(tmp_path):
  (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
  writer = _writer(tmp_path, start_step=1)
  with pytest.raises(MetricsError) as error:
    writer.write(2, {"a": 1})
  assert "metrics.jsonl cannot be written: No space left" in str(error.value)
  assert "resume from the last checkpoint" in str(error.value)
  with pytest.raises(MetricsError):
    writer.close()


def test_importing_metrics_imports_no_tensorflow():
  code = (
    "import sys, vitjax.run_folder.writer; "
    "sys.exit('tensorflow' in sys.modules)"
  )
  assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_record_is_json_that_others_can_read(tmp_path):
  _run(tmp_path, range(3))
  for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
    json.loads(line, parse_constant=lambda c: pytest.fail(c))
