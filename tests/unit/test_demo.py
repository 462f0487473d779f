"""What the page to try a model answers, and what it refuses."""

import dataclasses
import io
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import zlib

import cv2
import jax
import numpy as np
import pytest
from PIL import Image

import vitjax
from tests import run_folders
from vitjax import models
from vitjax.data import limits
from vitjax.demo import page, uploads
from vitjax.plots import attention_maps

ROOT = pathlib.Path(__file__).parents[2]
LIMITS = limits.Limits(max_bytes=2000, max_pixels=1000)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  file = tmp_path_factory.mktemp("model") / "x.npz"
  return vitjax.load(run_folders.make_file(file))


@pytest.fixture(scope="module")
def model(trained):
  return page.Model(trained, limits=LIMITS)


def test_channels_that_no_browser_shows_are_refused(trained):
  six = dataclasses.replace(trained, channels=6)
  with pytest.raises(ValueError, match=r"6 channels.*Use python -m"):
    page.Model(six, limits=LIMITS)


def png(tmp_path, pixels, name="x.png"):
  file = tmp_path / name
  cv2.imwrite(str(file), pixels[..., ::-1])
  return file


def test_answers_are_those_of_the_model(model, trained, tmp_path):
  pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
  answer = model.answer(png(tmp_path, pixels))
  batch = (pixels[None] / 127.5 - 1).astype(np.float32)
  logits, out = jax.jit(trained.model.apply)({"params": trained.params}, batch)
  logits = np.asarray(logits[0], np.float64)
  want = np.exp(logits - logits.max())
  want /= want.sum()
  assert list(answer.scores) == list(run_folders.CLASSES)
  np.testing.assert_allclose(list(answer.scores.values()), want, rtol=1e-4)
  # What the model got, each pixel several times.
  times = len(answer.image) // 8
  np.testing.assert_array_equal(answer.image[::times, ::times], pixels)
  heat = np.asarray(attention_maps.rollout(trained.model, out, batch.shape)[0])
  light = answer.attention.sum(-1, dtype=int) - answer.image.mean(-1) * 0.45 * 3
  corner = {
    (y, x): light[-y, -x] for y in (0, 1) for x in (0, 1)
  }  # a map of 2x2 has its values in the corners
  brightest = max(corner, key=corner.get)
  assert brightest == np.unravel_index(heat.argmax(), heat.shape)


def bomb(side):
  """A PNG of a few hundred bytes with so many pixels."""

  def chunk(kind, data):
    crc = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

  header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
  data = zlib.compress(bytes(100))
  chunks = [chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b"")]
  return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_uploads_have_limits(model, tmp_path):
  def refusal(data):
    file = tmp_path / "upload"
    file.write_bytes(data)
    with pytest.raises(ValueError) as error:
      model.answer(file)
    assert "\n" not in str(error.value)
    return str(error.value)

  readable = "not an image that can be read"
  for data in (b"", b"not an image", b"\x89PNG\r\n\x1a\n", b"<svg></svg>"):
    assert readable in refusal(data)
  assert "larger than 0.002 MB" in refusal(bytes(2001))
  for side in (32, 20_000, 60_000):  # Pillow itself warns and refuses
    assert "more than 0.001 million pixels" in refusal(bomb(side))
  assert "cannot be read" in refusal(bomb(30))  # small enough, but cut short
  tiff = io.BytesIO()
  Image.new("L", (8, 8)).save(tiff, "TIFF")
  assert readable in refusal(tiff.getvalue())


def test_limits_are_those_that_are_named(model, tmp_path):
  pixels = np.zeros((25, 40, 3), np.uint8)
  assert model.answer(png(tmp_path, pixels)).scores
  with pytest.raises(ValueError, match="pixels"):
    model.answer(png(tmp_path, np.zeros((26, 40, 3), np.uint8)))


def test_a_model_without_attention_still_answers(trained, tmp_path):
  options = {
    "name": "mixer",
    "width": 8,
    "depth": 1,
    "patch_size": 4,
    "tokens_mlp_dim": 4,
    "mlp_dim": 8,
    "num_classes": 3,
  }
  mixer = models.create(**options)
  params = run_folders.random_params(mixer)
  other = dataclasses.replace(trained, model=mixer, params=params)
  model = page.Model(other, limits=LIMITS)
  answer = model.answer(png(tmp_path, np.zeros((8, 8, 3), np.uint8)))
  assert answer.attention is None
  assert answer.note == "a mixer has no attention to show."
  assert sum(answer.scores.values()) == pytest.approx(1)


@pytest.mark.slow
def test_texts_are_compared(tmp_path):
  trained = vitjax.load(run_folders.make_two_towers(tmp_path / "x.npz"))
  demo = page.Model(trained, limits=LIMITS)
  file = png(tmp_path, np.full((8, 8, 3), 200, np.uint8))
  answer = demo.answer(file, "a cat\n\n  a dog \na cat\n")
  assert list(answer.scores) == ["a cat", "a dog"]
  logits = trained.similarity(trained.prepare(file)[None], ["a cat", "a dog"])
  want = np.exp(logits[0]) / np.exp(logits[0]).sum()
  np.testing.assert_allclose(list(answer.scores.values()), want, rtol=1e-4)
  assert answer.attention is not None
  with pytest.raises(ValueError, match="at least one text"):
    demo.answer(file, " \n ")


def test_uploads_of_a_killed_server_are_removed(tmp_path, monkeypatch):
  monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
  code = """if True:
    import pathlib, sys, time
    from vitjax.demo import uploads
    with uploads.folder() as folder:
      (pathlib.Path(folder) / "secret.png").touch()
      print(folder, flush=True)
      time.sleep(600)
  """
  server = subprocess.Popen(
    [sys.executable, "-c", code],
    env={**os.environ, "TMPDIR": str(tmp_path)},
    cwd=ROOT,
    stdout=subprocess.PIPE,
    text=True,
  )
  try:
    left = pathlib.Path(server.stdout.readline().strip())
    for other in ("vitjax_demo_older_version", "other"):
      (tmp_path / other).mkdir()
    for path in tmp_path.iterdir():
      os.utime(path, (0, 0))
    (tmp_path / "vitjax_demo_new").mkdir()
    with uploads.folder() as own:
      kept = {left.name, pathlib.Path(own).name, "vitjax_demo_new", "other"}
      assert {path.name for path in tmp_path.iterdir()} == kept
    assert not pathlib.Path(own).exists()
    assert (left / "secret.png").exists()  # its server runs
  finally:
    server.kill()
    server.wait()
    server.stdout.close()
  assert left.exists()
  uploads.remove_old()
  assert not left.exists()


def test_classes_of_the_same_name_stay_apart():
  assert page.unique(["crane", "b", "crane"]) == [
    "crane (0)",
    "b",
    "crane (2)",
  ]


def test_help_is_quick_and_says_who_can_reach_it():
  found = subprocess.run(
    [sys.executable, "-m", "vitjax.demo", "--help"],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert found.returncode == 0
  for part in ("--model", "--host", "--port", "--max_mb", "127.0.0.1"):
    assert part in found.stdout
