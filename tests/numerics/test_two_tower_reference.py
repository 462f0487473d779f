"""LiT against the embeddings that the published implementation gave."""

import pathlib
import runpy

import numpy as np
import pytest

from vitjax import models, trees, weights
from vitjax.models import attention, common
from vitjax.weights import layouts

FOLDER = pathlib.Path(__file__).parents[1] / "golden" / "reference"
ref = runpy.run_path(str(FOLDER / "refweights.py"))

# Float32 against float32, both at the highest matmul precision.
TOLERANCE = 2e-5

IMAGE = {"variant": "Ti/16", "pool_type": "tok"}
CASES = {
  "lit_Ti16_bert_base": {
    "image": {**IMAGE, "num_classes": 768, "posemb_prefix": True},
    "text": {"variant": "base", "num_classes": 768},
    "text_model": "bert",
  },
  "lit_Ti16_text_Ti": {
    "image": {**IMAGE, "scan_layers": True},
    "text": {
      "scan_layers": True,
      "variant": "Ti",
      "num_classes": 192,
      "vocab_size": 16_000,
      "max_len": 16,
    },
  },
}


def build(name):
  return models.create("two_tower", **CASES[name])


@pytest.fixture(
  scope="module",
  params=[
    pytest.param("lit_Ti16_bert_base", marks=pytest.mark.slow),
    "lit_Ti16_text_Ti",
  ],
)
def loaded(request, tmp_path_factory):
  """A published case, our model and the converted parameters."""
  case = ref["load_case"](request.param, FOLDER)
  model = build(request.param)
  flat = ref["weights"](case)
  if model.text_model == "text":
    file = tmp_path_factory.mktemp("lit") / "weights.npz"
    np.savez(file, **flat)
    params = weights.load(file, model, image_size=224)
  else:  # 440 MB: not through a file
    layout = layouts.recognise(flat)
    assert layout.NAME == "lit"
    params = trees.unflatten(layout.to_vitjax(flat, model))
  return case, model, params


def gap(got, case, key):
  """Largest |difference| relative to the largest |number|."""
  want = np.asarray(case["outputs"][key], np.float32)
  return float(np.abs(got - want).max() / np.abs(want).max())


def test_embeddings(loaded):
  case, model, params = loaded
  image_embedding, text_embedding, out = model.apply(
    {"params": params}, ref["images"](case), ref["tokens"](case)
  )
  gaps = {
    "image_embedding": gap(image_embedding, case, "image_embedding"),
    "text_embedding": gap(text_embedding, case, "text_embedding"),
    "t": gap(out["t"], case, "t"),
  }
  print(case["name"], {key: f"{value:.1e}" for key, value in gaps.items()})
  assert gaps.keys() == case["outputs"].keys()
  assert max(gaps.values()) < TOLERANCE


def text_gap(case, model, params):
  """The gap of the text embedding, without the image tower's parameters."""
  tree = {"params": {"t": params["t"], "txt": params["txt"]}}
  image_embedding, text_embedding, _ = model.apply(
    tree, None, ref["tokens"](case)
  )
  assert image_embedding is None
  return gap(text_embedding, case, "text_embedding")


@pytest.fixture
def bert(loaded):
  if loaded[1].text_model != "bert":
    pytest.skip("about BERT")
  return loaded


@pytest.fixture
def small_text(loaded):
  if loaded[1].text_model != "text":
    pytest.skip("about the text transformer")
  return loaded


def test_the_form_of_gelu_shows(loaded, monkeypatch):
  monkeypatch.setitem(common.GELU, "tanh", common.GELU["erf"])
  assert text_gap(*loaded) > 3 * TOLERANCE


def test_padding_without_a_mask_shows(bert, monkeypatch):
  attend = attention.attend
  monkeypatch.setattr(attention, "attend", lambda *args, mask: attend(*args))
  assert text_gap(*bert) > 3 * TOLERANCE


def test_a_transposed_kernel_shows(small_text):
  case, model, params = small_text
  head = params["txt"]["head"]
  head = {**head, "kernel": head["kernel"].T}
  params = {**params, "txt": {**params["txt"], "head": head}}
  assert text_gap(case, model, params) > 100 * TOLERANCE


def test_another_order_of_tokens_shows(small_text, monkeypatch):
  tokens = ref["tokens"](small_text[0])
  monkeypatch.setitem(ref, "tokens", lambda _: tokens[:, ::-1])
  assert text_gap(*small_text) > 100 * TOLERANCE
