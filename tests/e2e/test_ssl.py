"""Images without labels: pre-training, and what is done with the encoder."""

import json

import numpy as np
import pytest

from tests.e2e import launch
from tests.e2e.launch import record


@pytest.fixture(scope="module")
def encoder(tmp_path_factory, cache, pictures):
  """A run on images without labels, judged by digits."""
  workdir = tmp_path_factory.mktemp("ssl") / "run"
  finished = launch.run(
    "vitjax.main",
    "--config=configs/ssl.py:smoke",
    f"--workdir={workdir}",
    f"--config.input.data=images:{pictures}",
    "--config.input.pp=decode(channels=1)|resize(8)|value_range(-1, 1)",
    "--config.evals.knn.data=digits",
    "--config.evals.probe.data=digits",
    cache=cache,
  ).assert_done()
  assert "141 examples, whose labels are not used" in finished.text
  return workdir


@pytest.mark.slow
def test_training_reads_no_label_and_evals_judge_the_encoder(encoder):
  rows = [json.loads(line) for line in record(encoder).splitlines()]
  assert [r["step"] for r in rows if "train/loss" in r] == [1, 2, 3, 4]
  assert rows[-1]["knn/n_train"] == rows[-1]["probe/n_train"] == 200
  about = json.loads((encoder / "model.json").read_text())
  assert about["class_names"] is None
  assert "num_classes" not in about["model"]


@pytest.mark.slow
def test_the_encoder_is_fine_tuned(encoder, cache, tmp_path):
  options = "optim=adamw,layer_decay=0.75,steps=2,batch=16,flip=false"
  finished = launch.run(
    "vitjax.main",
    f"--config=configs/transfer.py:{encoder},digits,{options}",
    f"--workdir={tmp_path}",
    cache=cache,
  ).assert_done()
  assert "re-initialised" in finished.text
  about = json.loads((tmp_path / "model.json").read_text())
  assert about["model"]["name"] == "vit"
  assert about["model"]["num_classes"] == 10


@pytest.mark.slow
def test_predict_and_export_say_what_they_can(
  encoder, cache, pictures, tmp_path
):
  model = f"--model={encoder}"
  refused = launch.run("vitjax.predict", model, str(pictures), cache=cache)
  assert refused.code == 1
  assert "this model has no classes" in refused.text
  assert "--features=out.npz" in refused.text
  out = tmp_path / "out.npz"
  launch.run(
    "vitjax.predict",
    *(model, str(pictures / "val"), f"--features={out}", "--resize"),
    cache=cache,
  ).assert_done()
  with np.load(out) as found:
    assert found["features"].shape == (21, 32)
  file = tmp_path / "a.safetensors"
  refused = launch.run("vitjax.export", model, f"--out={file}", cache=cache)
  assert refused.code == 1
  assert "timm has no masked autoencoder. Fine-tune" in refused.text
