"""A run that an older vitjax began is resumed by this one.

`tests/golden/stored_run/run` was killed between steps 70 and 90 of 90, by
vitjax 0.1.0 of before its files moved to folders, and has no id of a run;
`uninterrupted.jsonl` is the record of the same command left alone.
"""

import json
import pathlib
import shutil

import numpy as np
import pytest

from tests.e2e import launch
from vitjax import trained
from vitjax.config import resolving, schema
from vitjax.run_folder import identity
from vitjax.run_folder.reader import read_metrics

STORED = pathlib.Path(__file__).parents[1] / "golden" / "stored_run"


@pytest.fixture
def workdir(tmp_path):
  return shutil.copytree(STORED / "run", tmp_path / "run")


def test_its_config_is_that_of_the_same_command(workdir):
  saved = json.loads((workdir / "config.json").read_text())
  run = resolving.resolve(saved)
  assert run.input.prefetch == 1
  identity.check_config(workdir, run)
  # Of other parameters it is another run.
  other = resolving.resolve({**saved, "seed": 4})
  with pytest.raises(schema.ConfigError, match="seed: 3 -> 4"):
    identity.check_config(workdir, other)


def test_its_parameters_load(workdir):
  loaded = trained.load(workdir)
  assert loaded.metadata["step"] == 70
  pixels = np.arange(64, dtype=np.uint8).reshape(8, 8, 1)
  logits = loaded.predict(loaded.prepare(pixels)[None])
  assert logits.shape == (1, 10) and np.isfinite(logits).all()


@pytest.mark.slow
def test_it_ends_as_if_nothing_had_happened(workdir, cache):
  assert launch.last_step(workdir) == 90  # what follows step 70 is lost
  command = launch.tiny(
    workdir,
    "input.prefetch=1",
    "total_steps=90",
    "evals.test.every_steps=30",
  )
  end = launch.run(*command, cache=cache).assert_done()
  assert "Resuming after step 70 of 90." in end.text
  rows, wanted = map(read_metrics, (workdir, STORED / "uninterrupted.jsonl"))
  assert len(rows) == len(wanted) == 33
  for row, expected in zip(rows, wanted):
    assert row.keys() == expected.keys()
    # On the processor that it was stored on, to the bit. On another one
    # float32 rounds differently: 1e-5 after 20 steps. Other images, crops or
    # mixing weights would change each loss by 1e-2.
    for name, value in expected.items():
      assert row[name] == pytest.approx(
        value, rel=1e-4, abs=3e-3 * ("/acc@" in name)
      ), (name, row)
