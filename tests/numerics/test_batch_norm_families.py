"""RegNetY and ResNets with batch norm against timm, and mistakes to be seen."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.numerics import reference
from tests.numerics.reference import TOLERANCE, distance, load
from vitjax import losses, models, objectives, trees
from vitjax.models import batch_norm, convolutions, regnet, resnet_bn
from vitjax.weights import layouts

CASES = {
  "mini_regnety": (
    "regnet",
    {"depths": (1, 1, 3, 3), "widths": (32, 64, 128, 256), "group_width": 16},
  ),
  "mini_seresnextaa": (
    "resnet_bn",
    {
      "depths": (1, 2, 1, 1),
      "widths": (16, 32, 64, 128),
      "groups": 4,
      "base_width": 16,
      "stem_widths": (8, 8, 16),
      "squeeze_excite": True,
      "antialias": True,
      "pool_shortcut": True,
    },
  ),
  **{
    f"timm_{name}": (name, {})
    for name in (
      *("regnety_032", "regnety_040", "regnety_080"),
      *("seresnext26d_32x4d", "resnetaa50d", "seresnetaa50d"),
    )
  },
}
build = functools.partial(reference.build, CASES)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_logits(name, tmp_path):
  model = build(name)
  assert distance(name, model, load(name, model, tmp_path)) < TOLERANCE


def epsilon(monkeypatch):
  for module in (regnet, resnet_bn):
    monkeypatch.setattr(
      module,
      "BatchNorm",
      lambda **options: batch_norm.BatchNorm(eps=1e-3, **options),
    )
  return {}


def tensorflows_padding(monkeypatch):
  conv = convolutions.common.conv
  monkeypatch.setattr(
    convolutions.common,
    "conv",
    lambda x, kernel, strides, padding, groups: conv(
      x, kernel, strides, "SAME", groups
    ),
  )
  return {}


def gate_with_silu(monkeypatch):
  class SqueezeExcite(convolutions.SqueezeExcite):
    @nn.compact
    def __call__(self, x):
      def dense(features, name):
        return nn.Dense(features, name=name)

      y = nn.silu(dense(self.width, "reduce")(x.mean(axis=(1, 2))))
      y = nn.sigmoid(dense(x.shape[-1], "expand")(y))
      return x * y[:, None, None]

  for module in (regnet, resnet_bn):
    monkeypatch.setattr(module, "SqueezeExcite", SqueezeExcite)
  return {}


def maxima_for_means(monkeypatch):
  monkeypatch.setattr(
    nn,
    "avg_pool",
    lambda x, window, strides, *rest, **kwargs: nn.max_pool(
      x, window, strides, *rest
    ),
  )
  return {}


def strides_in_the_branch(monkeypatch):
  """The resolution is halved before the mean pool, which then repeats it."""
  monkeypatch.setattr(
    resnet_bn.nn, "avg_pool", lambda x, *_, **__: x[:, ::2, ::2]
  )
  return {}


@pytest.mark.slow
@pytest.mark.parametrize(
  ("name", "mistake"),
  [
    ("mini_regnety", epsilon),
    ("mini_regnety", tensorflows_padding),
    ("mini_regnety", gate_with_silu),
    ("mini_seresnextaa", epsilon),
    ("mini_seresnextaa", tensorflows_padding),
    ("mini_seresnextaa", gate_with_silu),
    ("mini_seresnextaa", maxima_for_means),
    ("mini_seresnextaa", strides_in_the_branch),
  ],
)
def test_a_mistake_is_seen(name, mistake, tmp_path, monkeypatch):
  params = load(name, build(name), tmp_path)
  model = build(name, **mistake(monkeypatch))
  assert distance(name, model, params) > 10 * TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mini_regnety", "mini_seresnextaa"])
def test_a_pass_in_training_mode(name, tmp_path):
  """Logits, loss, gradients, and what the statistics are after it."""
  case = reference.case(f"train_{name}")
  model = build(name)
  variables = batch_norm.split(load(name, model, tmp_path))
  objective = objectives.classification(
    model, loss_fn=losses.softmax_xent, num_classes=10
  )
  about = {"seed": case["image_seed"], "image_shape": case["image_shape"]}
  image = reference.functions["images"](about)
  batch = {"image": image, "label": np.array(case["labels"])}
  key = jax.random.key(0)

  @jax.jit
  def step(variables):
    def loss(params):
      return objective.loss(
        {**variables, "params": params}, objective.prepare(batch, key), key
      )

    (value, statistics), grads = jax.value_and_grad(loss, has_aux=True)(
      variables["params"]
    )
    (logits, _), _ = model.apply(
      variables, image, train=True, mutable=[batch_norm.STATISTICS]
    )
    after = {**variables, **statistics}
    logits_after, _ = model.apply(after, image)
    return logits, value, grads, batch_norm.join(after), logits_after

  logits, value, grads, after, logits_after = jax.device_get(step(variables))
  want = case["outputs"]
  for got, name in (
    (logits, "logits"),
    (value, "loss"),
    (logits_after, "logits_eval_after"),
  ):
    assert relative(got, want[name]) < TOLERANCE, name
  layout = layouts.get(layouts.default(model, ".safetensors"))
  grads = layout.from_vitjax(trees.flatten(grads), model)
  for name, norm in want["grad_l2_of"].items():
    assert np.linalg.norm(grads[name]) == pytest.approx(norm, rel=2e-3), name
  running = layout.from_vitjax(trees.flatten(after), model)
  for name, x in want["running_after_one_step"].items():
    assert relative(running[name], x) < TOLERANCE, name


def relative(got, want):
  want = np.asarray(want)
  return float(np.abs(np.asarray(got) - want).max() / np.abs(want).max())


def without_statistics(flat):
  return {n: x for n, x in flat.items() if "running" not in n}


def test_a_file_without_statistics_is_refused(tmp_path):
  name = "mini_regnety"
  model = build(name)
  flat = without_statistics(reference.arrays(name))
  with pytest.raises(ValueError, match=r"Missing: .*stage0/block00/norm1/mean"):
    load(name, model, tmp_path, flat)


def test_counters_of_batches_are_dropped(tmp_path):
  name = "mini_regnety"
  model = build(name)
  flat = reference.arrays(name)
  counted = {**flat, "stem.bn.num_batches_tracked": jnp.int32(7)}
  trees_of = [
    trees.flatten(load(name, model, tmp_path, x)) for x in (flat, counted)
  ]
  assert trees_of[0].keys() == trees_of[1].keys()


@pytest.mark.parametrize(
  ("name", "shapes"),
  [  # (first block, others) of each stage, as timm has them
    ("regnety_032", ((8, 18), (18, 54), (54, 144), (144,))),
    ("regnety_040", ((8, 32), (32, 48), (48, 128), (128, 272))),
  ],
)
def test_gates_are_a_quarter_of_the_blocks_input(name, shapes):

  model = models.create(name, num_classes=10)
  image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  tree = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
  for s, widths in enumerate(shapes):
    for b, width in enumerate(widths):
      gate = tree[f"stage{s}"][f"block{b:02d}"]["squeeze_excite"]["reduce"]
      assert gate["bias"].shape == (width,)


def test_an_odd_map_with_mean_pools_is_refused():

  model = build("mini_seresnextaa")
  image = jax.ShapeDtypeStruct((1, 48, 64, 3), jnp.float32)
  with pytest.raises(ValueError, match="must be multiples of 32"):
    jax.eval_shape(model.init, jax.random.key(0), image)
