"""Models of transformers: config.json, layout and logits, and mistakes."""

import functools

import numpy as np
import pytest

from tests.numerics import reference
from vitjax import models, trees
from vitjax.models import batch_norm
from vitjax.weights import fitting, layouts
from vitjax.weights.hub import transformers
from vitjax.weights.hub.fields import Fields

CASES = {
  "hf_mini_convnext": "hf_convnext",
  "hf_mini_deit": "hf_deit",
  "hf_mini_regnet": "hf_resnet",
  "hf_mini_resnet": "hf_resnet",
  "hf_mini_swin": "hf_swin",
  "hf_mini_swinv2": "hf_swin",
  "hf_mini_vit": "hf_vit",
}


@functools.cache
def build(name, **changes):
  """The model that the config.json of a case describes."""
  fields = Fields({**reference.case(name)["config"], **changes}, name)
  metadata = transformers.describe(fields, lambda: Fields({}, name))
  return models.create(**metadata["model"])


def some_slow(names):
  """The cases as parameters, those marked whose like is in another family."""
  slow = ("hf_mini_regnet", "hf_mini_swinv2", "hf_mini_vit")
  return [
    pytest.param(x, marks=pytest.mark.slow if x in slow else ()) for x in names
  ]


@pytest.mark.parametrize("name", some_slow(CASES))
def test_logits(name, tmp_path):
  model = build(name)
  params = reference.load(name, model, tmp_path)
  assert reference.distance(name, model, params) < reference.TOLERANCE


def swapped(first, second):
  """The weights with two arrays in each other's place."""

  def change(flat):
    return {**flat, first: flat[second], second: flat[first]}

  return change


def without_means(flat):
  return {
    n: np.zeros_like(x) if n.endswith("running_mean") else x
    for n, x in flat.items()
  }


@pytest.mark.slow
@pytest.mark.parametrize(
  ("name", "options", "change"),
  [
    ("hf_mini_convnext", {"hidden_act": "gelu_new"}, None),
    (
      "hf_mini_deit",
      {},
      swapped(
        "deit.embeddings.cls_token", "deit.embeddings.distillation_token"
      ),
    ),
    ("hf_mini_regnet", {}, without_means),
    ("hf_mini_resnet", {}, without_means),
    ("hf_mini_swin", {"layer_norm_eps": 1e-3}, None),
    ("hf_mini_swinv2", {"pretrained_window_sizes": (4, 4)}, None),
    ("hf_mini_vit", {"hidden_act": "gelu_pytorch_tanh"}, None),
  ],
)
def test_mistakes_show(name, options, change, tmp_path):
  model, flat = build(name, **options), reference.arrays(name)
  flat = change(flat) if change else flat
  params = reference.load(name, model, tmp_path, flat)
  assert reference.distance(name, model, params) > 2 * reference.TOLERANCE


@pytest.mark.parametrize("name", CASES)
def test_layouts_are_written_as_they_are_read(name):
  model, flat = build(name), reference.arrays(name)
  layout = layouts.recognise(flat)
  assert layout.NAME == CASES[name]
  ours = layout.to_vitjax(flat, model)
  again = layout.from_vitjax(ours, model)
  assert again.keys() == flat.keys()
  for key, x in flat.items():
    np.testing.assert_array_equal(again[key], x, key)
  # A bare model, without the prefix and the classifier.
  bare = {
    key.partition(".")[2]: x
    for key, x in flat.items()
    if not key.startswith("classifier")
  }
  assert layouts.recognise(bare).NAME == CASES[name]
  headless = model.clone(num_classes=None)
  got = layout.to_vitjax(bare, headless)
  assert got.keys() == ours.keys() - {"head/kernel", "head/bias"}


@pytest.mark.slow
def test_the_defaults_make_the_published_sizes():
  """A config.json lists only what differs from the defaults, or everything."""
  counts = {
    "convnext": 28_589_128 - 768 * 998 - 998,
    "vit": 86_567_656 - 768 * 998 - 998,
    "resnet": 25_557_032 - 2048 * 998 - 998,
    "swin": 28_288_354 - 768 * 998 - 998,
  }
  for kind, count in counts.items():
    prefix = transformers.FAMILIES[kind].prefix
    content = {
      "model_type": kind,
      "architectures": [f"{prefix}ForImageClassification"],
    }
    metadata = transformers.describe(
      Fields(content, kind), lambda: Fields({}, "processor")
    )
    model = models.create(**metadata["model"])
    assert count_of(model) == count


def count_of(model):
  shapes = fitting.shapes(model, fitting.example_inputs(model, 224))
  variables = batch_norm.split(trees.unflatten(shapes))
  flat = trees.flatten(variables["params"])
  return sum(int(np.prod(x.shape)) for x in flat.values())
