"""Six channels, from TIFF files to the report, after training on RGB."""

import json

import numpy as np
import pytest
from PIL import Image

import vitjax
from tests.e2e import launch

SIX = "decode(channels=6, pages=True, levels=(0, 4095))"
NORMALIZE = "normalize((.1,.2,.3,.4,.5,.6), (.3,.3,.3,.3,.3,.3))"


def write_images(folder, channels):
  random = np.random.default_rng(0)
  for label in "ab":
    for i in range(8):
      file = folder / label / f"{i}.tif"
      file.parent.mkdir(parents=True, exist_ok=True)
      values = random.integers(0, 4000, (channels, 20, 24), np.uint16)
      first, *rest = map(Image.fromarray, values)
      first.save(file, save_all=True, append_images=rest)


@pytest.mark.slow
def test_six_channels(tmp_path):
  write_images(tmp_path / "one", 1)
  write_images(tmp_path / "six", 6)

  def train(data, decode, normalize, workdir, *flags):
    return launch.run(
      "vitjax.main",
      "--config=configs/small_vit.py:"
      f"data=folder:{tmp_path / data},epochs=1,res=16,batch=8",
      f"--config.input.pp={decode}|inception_crop(16)|flip_lr|{normalize}",
      f"--config.evals.val.pp={decode}|resize(16)|{normalize}",
      "--config.model.depth=1",
      f"--workdir={tmp_path / workdir}",
      *flags,
      cache=tmp_path / "cache",
    )

  rgb = "decode(levels=(0, 4095))"
  train("one", rgb, "value_range(-1, 1)", "rgb").assert_done()
  init = f"--config.init.weights={tmp_path / 'rgb'}"
  train("six", SIX, NORMALIZE, "refused", init).assert_refused(
    'config.init.channels (channel_rule in Python) = "sum", "repeat" or "first"'
  )
  rule = "--config.init.channels=sum"
  log = train("six", SIX, NORMALIZE, "run", init, rule).assert_done().text
  assert "embedding/kernel (8, 8, 3, 128) -> (8, 8, 6, 128) by 'sum'" in log
  run = vitjax.load(tmp_path / "run")
  assert run.channels == 6
  file = tmp_path / "six/a/0.tif"
  assert run.prepare(file).shape == (16, 16, 6)
  for command in (
    ("vitjax.predict", f"--model={tmp_path / 'run'}", str(file)),
    ("vitjax.evaluate", f"--model={tmp_path / 'run'}"),
    (
      "vitjax.export",
      f"--model={tmp_path / 'run'}",
      f"--out={tmp_path / 'x.npz'}",
    ),
    ("vitjax.predict", f"--model={tmp_path / 'x.npz'}", str(file)),
    (
      "vitjax.report",
      str(tmp_path / "run"),
      f"--out={tmp_path / 'report.html'}",
    ),
  ):
    launch.run(*command, cache=tmp_path / "cache").assert_done()
  about = json.loads((tmp_path / "x.json").read_text())
  assert about["channels"] == 6 and about["preprocess"].startswith(SIX)
