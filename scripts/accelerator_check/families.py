"""One train step of each family on the device against one on the CPU.

The CPU computes in float32. On the device the errors are of float32 with exact
products (unless it is that CPU) and of bfloat16, as in training. An error is
the norm of the difference of all updates, relative to the norm of the CPU's.
"""

import jax
import jax.numpy as jnp
import numpy as np

from scripts.bench import network

_VIT = {"width": 32, "depth": 2, "mlp_dim": 64, "num_heads": 2, "patch_size": 8}
_TEXT = {"width": 32, "depth": 1, "mlp_dim": 64, "num_heads": 2}
_WORDS = {"vocab_size": 50, "max_len": 8}
_TWO_STAGES = {"depths": (1, 1), "widths": (8, 16)}
# Case -> (model, options). Families of texts are towers.
CASES: dict[str, tuple[str, dict]] = {
  "vit": ("vit", _VIT),
  "bert": (
    "two_tower",
    {"image": _VIT, "text_model": "bert", "text": {**_TEXT, **_WORDS}},
  ),
  "coatnet": (
    "coatnet",
    {
      "stem_widths": (4, 8),
      "widths": (8, 32, 32, 64),
      "depths": (1, 1, 1, 1),
    },
  ),
  "convnext": ("convnext", {**_TWO_STAGES, "layer_scale_init": 1.0}),
  "efficientnet": (
    "efficientnet",
    {
      "depths": (1, 1, 1, 1, 1, 1, 1),
      "widths": (8, 8, 8, 16, 16, 16, 16),
      "stem_width": 8,
      "head_width": 32,
    },
  ),
  "maxxvit": (
    "maxxvit",
    {"stem_widths": (8, 32), "widths": (32, 64), "depths": (1, 1)},
  ),
  "metaformer": (
    "metaformer",
    {"depths": (1, 1), "widths": (8, 32), "mixers": ("conv", "attention")},
  ),
  "mixer": (
    "mixer",
    {
      "width": 16,
      "depth": 2,
      "tokens_mlp_dim": 16,
      "mlp_dim": 32,
      "patch_size": 8,
    },
  ),
  "nfnet": ("nfnet", {"depths": (1, 1), "widths": (256, 256)}),
  "regnet": ("regnet", {**_TWO_STAGES, "group_width": 4}),
  "resnet": ("resnet", {"stages": (1, 1)}),
  "resnet_bn": ("resnet_bn", {"depths": (1, 1), "widths": (4, 8)}),
  "swin": (
    "swin",
    {"width": 16, "depths": (2, 1), "num_heads": (2, 2), "window": 4},
  ),
  "text": (
    "two_tower",
    {"image": _VIT, "text": {**_TEXT, **_WORDS}},
  ),
  "two_tower": (
    "two_tower",
    {"image": _VIT, "text": {**_TEXT, **_WORDS}, "bias_init": -1.0},
  ),
}
_SIZE, _BATCH = 32, 8
_TOLERANCE = {"float32": 2e-3, "bfloat16": 0.1}
# Images have one pixel in its last blocks, so that batch normalisation divides
# by the deviation of 8 numbers, which enlarges what bfloat16 rounds: 0.16 on a
# CPU.
_LOOSER = {("efficientnet", "bfloat16"): 0.3}


def _batch(tokens: int | None) -> dict[str, np.ndarray]:
  random = np.random.default_rng(0)
  shape = (_BATCH, _SIZE, _SIZE, 3)
  image = random.integers(256, size=shape, dtype="uint8")
  if tokens is None:
    label = random.integers(1000, size=_BATCH, dtype="int32")
    return {"image": image, "label": label}
  text = random.integers(1, 50, size=(_BATCH, tokens), dtype="int32")
  return {"image": image, "text": text}


def run(case: str, tiny: bool) -> dict:
  del tiny
  name, options = CASES[case]
  tokens = _WORDS["max_len"] if name == "two_tower" else None
  batch = _batch(tokens)
  device, cpu = jax.devices()[0], jax.devices("cpu")[0]

  def make(where, dtype):
    return network.make(
      name,
      {"name": "sgd", "learning_rate": 1.0},
      image_size=_SIZE,
      tokens=tokens,
      device=where,
      **options,
      dtype=dtype,
    )

  exact = make(cpu, "float32")
  state = exact.init(jax.random.key(0))
  # Heads start at zero, and then nothing before them has a gradient.
  leaves, tree = jax.tree.flatten(jax.device_get(state.params))
  random = np.random.default_rng(1)
  params = tree.unflatten(
    [x + 0.02 * random.standard_normal(x.shape, np.float32) for x in leaves]
  )

  def update(made, where):
    """The loss of a step, and what it adds to the parameters."""
    start = jax.device_put(jax.tree.map(jnp.copy, jax.device_get(state)), where)
    start = type(start)(
      **{**vars(start), "params": jax.device_put(params, where)}
    )
    after, metrics = made.train(start, jax.device_put(batch, where))
    added = jax.tree.map(np.subtract, jax.device_get(after.params), params)
    return float(metrics["train/loss"]), np.concatenate(
      [x.ravel() for x in jax.tree.leaves(added)]
    )

  with jax.default_matmul_precision("highest"):
    loss, want = update(exact, cpu)
    results = {}
    if device != cpu:
      results["float32"] = update(make(device, "float32"), device)
  results["bfloat16"] = update(make(device, "bfloat16"), device)
  facts = {"loss": loss}
  for dtype, (got_loss, got) in results.items():
    error = float(np.linalg.norm(got - want) / np.linalg.norm(want))
    facts[f"{dtype}_loss"], facts[f"{dtype}_error"] = got_loss, error
    if not error < _LOOSER.get((case, dtype), _TOLERANCE[dtype]):
      raise RuntimeError(f"{dtype} differs from the CPU: {facts}")
  return facts
