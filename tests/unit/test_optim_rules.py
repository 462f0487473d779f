"""Rules of the optimizer over parameter names, and what is said of them."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vitjax import models, optim, trees
from vitjax.config import resolving
from vitjax.optim import agc

OPTIMIZERS = (
  "adam",
  "adafactor",
  "lamb",
  "sgd",
  *(
    pytest.param(name, marks=pytest.mark.slow)
    for name in (
      "lion",
      "muon",
      "nadamw",
      "schedule_free_adamw",
      "schedule_free_sgd",
    )
  ),
)


def make(name="sgd", factor=1.0, **options):
  return optim.make_optimizer(
    name,
    schedule=lambda _: jnp.float32(factor),
    **{"learning_rate": 0.1, **options},
  )


def arrays(shapes, seed):
  rng = np.random.default_rng(seed)
  return trees.unflatten(
    {
      k: jnp.asarray(rng.normal(size=shape), jnp.float32)
      for k, shape in shapes.items()
    }
  )


SHAPES = {
  "embedding/kernel": (4, 4, 3, 8),
  "embedding/bias": (8,),
  "block/kernel": (8, 8),
  "head/kernel": (8, 5),
  "head/bias": (5,),
}
PARAMS, GRADS = arrays(SHAPES, 0), arrays(SHAPES, 1)


def updates(tx, params=PARAMS, grads=GRADS, steps=1):
  """Flat updates of the last of some steps at the same parameters."""

  @jax.jit
  def run(params, grads):
    state = tx.init(params)
    for _ in range(steps):
      result, state = tx.update(grads, state, params)
    return result

  return trees.flatten(run(params, grads))


class TestFreeze:
  @pytest.mark.parametrize("name", OPTIMIZERS)
  def test_frozen_parameters_stay_and_have_no_state(self, name):
    tx = make(name, freeze=("embedding/.*",), weight_decay=0.1)
    state = trees.names(jax.eval_shape(tx.init, PARAMS))
    assert any("head/kernel" in key for key in state)
    assert not any("embedding" in key for key in state)
    for key, update in updates(tx).items():
      old = np.array(trees.flatten(PARAMS)[key])
      same = np.array_equal(old + update, old)
      assert same == key.startswith("embedding"), key

  @pytest.mark.parametrize("name", OPTIMIZERS)
  def test_the_others_do_not_notice(self, name):
    """Neither in the clip norm nor in the decay."""
    options = {"grad_clip_norm": 0.5, "agc_clip": 0.1, "weight_decay": 0.1}
    frozen = updates(make(name, freeze=("embedding/.*",), **options), steps=2)
    rest = {k: v for k, v in PARAMS.items() if k != "embedding"}
    grads = {k: v for k, v in GRADS.items() if k != "embedding"}
    alone = updates(make(name, **options), rest, grads, steps=2)
    assert len(alone) == 3
    for key, update in alone.items():
      np.testing.assert_array_equal(frozen[key], update)

  def test_everything_may_be_frozen_but_a_linear_probe(self):
    got = updates(make(freeze=("(?!head/).*",), weight_decay=0.1))
    moved = {key for key, update in got.items() if np.any(update != 0)}
    assert moved == {"head/kernel", "head/bias"}


class TestMultipliers:
  RULES = (("head/.*", 10.0), (".*/kernel", 0.5))

  def ratio(self, **options):
    """What the rules multiply each update by."""
    with_rules = updates(make(learning_rate_multipliers=self.RULES, **options))
    without = updates(make(**options))
    return {k: np.unique(with_rules[k] / without[k]) for k in without}

  def test_the_first_match_wins(self):
    got = self.ratio()
    want = {"embedding/kernel": 0.5, "embedding/bias": 1, "block/kernel": 0.5}
    want |= {"head/kernel": 10, "head/bias": 10}
    for key, values in got.items():
      np.testing.assert_allclose(values, want[key], rtol=1e-6)

  @pytest.mark.parametrize(
    "name, scale, decay_factor",
    [
      ("sgd", "learning_rate", 0.5),
      ("sgd", "schedule", 1.0),
      ("sgd", "gradient", 0.5),
      ("adam", "learning_rate", 0.5),
      ("adam", "schedule", 1.0),
    ],
  )
  def test_they_scale_the_decay_of_the_learning_rate_only(
    self, name, scale, decay_factor
  ):
    def decay(**options):
      """The update's part that comes from the decay."""
      on = make(name, weight_decay=0.2, decay_scale=scale, **options)
      off = make(name, **options)
      key = "block/kernel"
      return updates(on)[key] - updates(off)[key]

    got = decay(learning_rate_multipliers=self.RULES)
    np.testing.assert_allclose(got, decay_factor * decay(), atol=1e-6)


def test_order_of_the_gradients_changes():
  """Global norm, AGC, L2 and momentum, each seeing what those before it did."""
  tx = make(
    factor=0.5,
    weight_decay=0.2,
    decay_scale="gradient",
    grad_clip_norm=1.0,
    agc_clip=0.02,
  )
  got = updates(tx, steps=2)
  flat, weights = trees.flatten(GRADS), trees.flatten(PARAMS)
  norm = np.sqrt(sum(np.sum(np.square(g)) for g in flat.values()))
  for key, update in got.items():
    g, w = np.array(flat[key]) / norm, np.array(weights[key])
    if key != "head/kernel":
      axes = tuple(range(g.ndim - 1)) if key.endswith("kernel") else None
      limit = 0.02 * np.sqrt(np.sum(w**2, axes, keepdims=True))
      g = g * np.minimum(1, limit / np.sqrt(np.sum(g**2, axes, keepdims=True)))
    if key.endswith("kernel"):
      g = g + 0.2 * w
    want = -0.5 * 0.1 * (g + 0.9 * g)
    np.testing.assert_allclose(update, want, rtol=2e-5, atol=1e-7)


class TestLayerDecay:
  model = models.create("vit", variant="mu/16", depth=3, num_classes=5)

  @staticmethod
  def params_of(model):
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    tree = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
    return {k: x.shape for k, x in trees.flatten(tree).items()}

  def test_updates_shrink_towards_the_stem(self):
    shapes = {
      key: shape
      for key, shape in self.params_of(self.model).items()
      if len(shape) < 3 or "pos" in key
    }
    params, grads = arrays(shapes, 0), arrays(shapes, 1)
    options = {"layer_decay": 0.5, "model": self.model}
    rules = (("head/bias", 3.0),)
    tx = make(**options, learning_rate_multipliers=rules)
    got = updates(tx, params, grads)
    plain = updates(make(), params, grads)
    power = {"pos_embedding": 4, "embedding": 4, "Transformer/encoder_norm": 0}
    power |= {f"Transformer/encoderblock_{i}": 3 - i for i in range(3)}
    for key, update in got.items():
      exponent = next((p for k, p in power.items() if key.startswith(k)), 0)
      factor = 3.0 if key == "head/bias" else 0.5**exponent
      np.testing.assert_allclose(update, factor * plain[key], rtol=1e-6)

  @pytest.mark.parametrize(
    "name, options",
    [
      ("adam", {}),
      ("sgd", {"agc_clip": 0.01, "agc_exclude": ()}),
      ("lamb", {}),
      pytest.param("adafactor", {"min_dim": 4}, marks=pytest.mark.slow),
      pytest.param("muon", {}, marks=pytest.mark.slow),
      pytest.param("schedule_free_adamw", {}, marks=pytest.mark.slow),
    ],
  )
  def test_stacked_blocks_are_the_same_blocks(self, name, options):
    kinds = r"embedding/.*|.*(query/kernel|out/kernel|LayerNorm_0/scale)"
    shapes = {
      key: shape
      for key, shape in self.params_of(self.model).items()
      if re.fullmatch(kinds, key)
    }
    loop, grads = arrays(shapes, 0), arrays(shapes, 1)
    # Blocks of different sizes, so that a norm over all of them is wrong.
    for i in range(3):
      block = loop["Transformer"][f"encoderblock_{i}"]
      scaled = jax.tree.map(lambda x, i=i: x * 10.0**i, block)
      loop["Transformer"][f"encoderblock_{i}"] = scaled

    def stack(tree):
      blocks = [tree["Transformer"][f"encoderblock_{i}"] for i in range(3)]
      stacked = jax.tree.map(lambda *x: jnp.stack(x), *blocks)
      return {**tree, "Transformer": {"encoderblock": stacked}}

    def run(model, params, grads):
      tx = make(name, model=model, layer_decay=0.5, weight_decay=0.1, **options)
      return updates(tx, params, grads, steps=2)

    scanned = self.model.clone(scan_layers=True)
    got = run(scanned, stack(loop), stack(grads))
    want = run(self.model, loop, grads)
    want = trees.flatten(stack(trees.unflatten(want)))
    assert got.keys() == want.keys()
    for key, update in got.items():
      np.testing.assert_allclose(update, want[key], rtol=1e-5, atol=1e-7)

  def test_a_model_is_needed(self):
    with pytest.raises(ValueError, match="layer_decay needs the model"):
      make(layer_decay=0.5).init(PARAMS)


class TestAdaptiveGradClip:
  """Against the paper's formula in a loop over units."""

  @staticmethod
  def by_hand(g, w, clip=0.02):
    limit = clip * max(np.sqrt(np.sum(w**2)), 1e-3)
    norm = np.sqrt(np.sum(g**2))
    return g * limit / norm if norm > limit else g

  def check(self, name, shape, units):
    tx = agc.adaptive_grad_clip(0.02, {name})
    clip = jax.jit(lambda g, w: tx.update(g, tx.init(w), w)[0])
    # Every other unit is above its limit, then those in between.
    for scales in ([1e-3, 10.0], [10.0, 1e-3]):
      rng = np.random.default_rng(0)
      w = rng.normal(size=shape).astype(np.float32)
      g = rng.normal(size=shape).astype(np.float32)
      want = np.zeros_like(g)
      for i, unit in enumerate(units):
        g[unit] *= scales[i % 2]
        w[unit] *= i % 5 != 4  # some weights are zero
        want[unit] = self.by_hand(g[unit], w[unit])
      got = clip(trees.unflatten({name: g}), trees.unflatten({name: w}))
      np.testing.assert_allclose(
        trees.flatten(got)[name], want, rtol=1e-5, atol=1e-9
      )
      if len(units) > 1:
        assert 0 < np.mean(want == g) < 1

  @pytest.mark.parametrize(
    "name, shape, num_unit_axes",
    [
      ("stem_conv0/kernel", (3, 3, 4, 8), 1),
      ("dwconv/kernel", (7, 7, 1, 8), 1),
      ("head/kernel", (6, 9), 1),
      ("a/query/kernel", (12, 3, 4), 2),
      ("a/out/kernel", (3, 4, 12), 1),
      ("conv/gain", (9,), 0),
      ("block/skip_gain", (), 0),
      ("cls", (1, 1, 12), 0),
      ("pos_embedding", (1, 6, 12), 0),
      ("a/query/bias", (3, 4), 0),
      ("one/kernel", (1, 7), 0),
    ],
  )
  def test_units(self, name, shape, num_unit_axes):
    lead = len(shape) - num_unit_axes
    units = [
      (slice(None),) * lead + index for index in np.ndindex(*shape[lead:])
    ]
    self.check(name, shape, units)

  def test_stacked_blocks(self):
    units = [
      (i, slice(None), slice(None), j) for i in range(4) for j in range(5)
    ]
    self.check("T/encoderblock/a/out/kernel", (4, 2, 3, 5), units)
    units = [(i, ...) for i in range(7)]
    self.check("T/encoderblock/a/out/bias", (7, 5), units)

  def test_equals_optax_for_dense_and_convolution_kernels(self):
    clip = agc.adaptive_grad_clip(0.01, set(SHAPES))
    theirs = optax.adaptive_grad_clip(0.01)
    for a, b in zip(updates(clip).values(), updates(theirs).values()):
      np.testing.assert_allclose(a, b, rtol=1e-6)

  def test_the_classifiers_kernel_is_left_out(self):
    """Its bias is not, as published."""
    got = updates(make(agc_clip=1e-3))
    plain = updates(make())
    same = {key for key in got if np.array_equal(got[key], plain[key])}
    assert same == {"head/kernel"}
    everything = updates(make(agc_clip=1e-3, agc_exclude=()))
    assert np.all(everything["head/kernel"] != plain["head/kernel"])


COMMON_OPTIONS = {
  "learning_rate": 1e-3,
  "weight_decay": 0.05,
  "decay_params": [".*/kernel"],
  "grad_clip_norm": 1.0,
  "agc_clip": 0.01,
  "agc_exclude": ["head/kernel"],
  "learning_rate_multipliers": [["head/.*", 10]],
  "layer_decay": 0.75,
  "freeze": ["embedding/.*"],
}


class TestConfig:
  @pytest.mark.parametrize(
    "name, own",
    [
      ("adam", {"b1": 0.9, "b2": 0.95, "eps": 1e-8, "mu_dtype": "bfloat16"}),
      ("lamb", {"b1": 0.9, "b2": 0.99, "eps": 1e-6, "mu_dtype": "float32"}),
      (
        "sgd",
        {"momentum": 0.9, "nesterov": True, "accumulator_dtype": "bfloat16"},
      ),
      ("lion", {"b1": 0.9, "b2": 0.98, "mu_dtype": "bfloat16"}),
      ("nadamw", {"b1": 0.9, "b2": 0.98, "eps": 1e-7, "mu_dtype": "bfloat16"}),
      (
        "muon",
        {
          "momentum": 0.9,
          "nesterov": False,
          "ns_steps": 3,
          "consistent_rms": None,
          "adam_params": ["head/.*"],
          "b1": 0.8,
          "b2": 0.9,
          "eps": 1e-7,
          "mu_dtype": "bfloat16",
        },
      ),
      (
        "schedule_free_adamw",
        {"b1": 0.95, "b2": 0.9, "eps": 1e-7, "weight_lr_power": 0.0},
      ),
      ("schedule_free_sgd", {"b1": 0.5, "weight_lr_power": 1.0}),
      (
        "adafactor",
        {
          "momentum": None,
          "momentum_dtype": "bfloat16",
          "decay_exponent": 0.8,
          "beta2_cap": 0.999,
          "min_dim": 32,
          "eps": 1e-30,
        },
      ),
    ],
  )
  def test_every_option_can_be_configured(self, name, own):
    known = optim.options(name)
    scales = ["learning_rate"]
    scales += ["schedule", "gradient"] if name != "lamb" else []
    for scale in scales:
      section = {**COMMON_OPTIONS, **own, "decay_scale": scale}
      assert not resolving.check_call(known, section, "optim")
      make(name, **section)
    assert "model" not in known and "schedule" not in known

  @pytest.mark.parametrize(
    "wrong",
    [
      {"decay_scale": "lr"},
      {"nesterov": 1},
      {"freeze": "head/.*"},
      {"accumulator_dtype": "bf16"},
      {"layer_decay": "0.7"},
    ],
    ids=str,
  )
  def test_wrong_types_are_found(self, wrong):
    (key,) = wrong
    errors = resolving.check_call(optim.options("sgd"), wrong, "optim")
    assert len(errors) == 1 and f"config.optim.{key}=" in errors[0]

  @pytest.mark.parametrize(
    "wrong",
    [
      {"learning_rate": 0.0},
      {"weight_decay": -0.1},
      {"grad_clip_norm": 0.0},
      {"agc_clip": -0.01},
      {"layer_decay": 1.5},
      {"layer_decay": 0.0},
      {"learning_rate_multipliers": [["head/.*", 0]]},
      {"learning_rate_multipliers": ["head/.*"]},
      {"freeze": ["("]},
      {"agc_exclude": ["["]},
    ],
    ids=str,
  )
  def test_wrong_values_are_found_at_once(self, wrong):
    (key,) = wrong
    with pytest.raises(ValueError, match=rf"config\.optim\.{key}"):
      make(**wrong)

  def test_lamb_has_one_kind_of_decay(self):
    with pytest.raises(ValueError, match=r"decay_scale='schedule'.*for lamb"):
      make("lamb", decay_scale="schedule")

  @pytest.mark.parametrize(
    "wrong",
    [
      {"freeze": ["embeding/.*"]},
      {"learning_rate_multipliers": [["heads/.*", 2.0]]},
      {"agc_clip": 0.01, "agc_exclude": ["classifier"]},
      {"weight_decay": 0.1, "decay_params": ["kernel"]},
    ],
    ids=str,
  )
  def test_a_rule_that_matches_nothing_is_an_error(self, wrong):
    *_, key = wrong
    with pytest.raises(ValueError, match=rf"config\.optim\.{key} do not fit"):
      make(**wrong).init(PARAMS)
    with pytest.raises(ValueError, match=rf"config\.optim\.{key} do not fit"):
      optim.describe(PARAMS, name="sgd", learning_rate=0.1, **wrong)


class TestDescribe:
  def lines(self, name="adam", **options):
    return optim.describe(
      PARAMS, **{"name": name, "learning_rate": 1e-3, **options}
    )

  def test_both_conventions_of_decay_say_the_same(self):
    want = [
      "Weight decay: 3 arrays, 488 parameters; subtracts 0.0001 of them in a "
      "step at the peak, as PyTorch's AdamW does with weight_decay=0.1.",
      "No weight decay: 2 arrays, 13 parameters.",
    ]
    assert self.lines(weight_decay=0.1) == want
    assert self.lines(weight_decay=1e-4, decay_scale="schedule") == want

  def test_everything_else(self):
    assert self.lines() == []
    rules = (("head/.*", 10.0), ("block/.*", 0.5))
    got = self.lines(
      "lamb",
      weight_decay=0.1,
      learning_rate_multipliers=rules,
      freeze=("embedding/.*",),
      agc_clip=0.01,
    )
    assert got == [
      "Weight decay: 2 arrays, 104 parameters; subtracts 5e-05 to 0.001 of "
      "them times the trust ratio in a step at the peak, as PyTorch's AdamW "
      "does with weight_decay=0.1.",
      "No weight decay: 1 array, 5 parameters.",
      "Adaptive gradient clipping: 2 arrays, 69 parameters.",
      "Learning rate times 0.5 to 10: 3 arrays, 109 parameters.",
      "Frozen: 2 arrays, 392 parameters.",
    ]
    got = self.lines("sgd", weight_decay=2e-5, decay_scale="gradient")
    assert got[0].endswith("; adds 2e-05 of them to the gradients.")

  def test_muon_says_what_it_updates(self):
    assert self.lines("muon") == [
      "Muon: 1 arrays, 64 parameters. Adam: 4 arrays, 437 parameters."
    ]
    frozen = self.lines("muon", freeze=("embedding/.*",))
    assert frozen[-1] == (
      "Muon: 1 arrays, 64 parameters. Adam: 2 arrays, 45 parameters."
    )

  def test_layer_decay_of_abstract_parameters(self):
    model = models.create("vit", variant="Ti/16", scan_layers=True)
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
    (line,) = optim.describe(
      params, name="adam", learning_rate=1e-3, layer_decay=0.5, model=model
    )
    size = sum(x.size for x in jax.tree.leaves(params)) - 2 * 192
    assert line == (
      f"Learning rate times 0.0001221 to 0.5: 19 arrays, {size:,} parameters."
    )
