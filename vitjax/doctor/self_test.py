"""A tiny run with all parts of a real one, whose outcome is known."""

import dataclasses
import functools
import math
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

from vitjax import checks, program, start, trees
from vitjax import step as step_lib
from vitjax.checkpoint.checkpointer import Checkpointer
from vitjax.config import resolving
from vitjax.data import pipeline, sources
from vitjax.models import attention, fused_attention
from vitjax.parallel import sharding

_STEPS = 16
_SAVED = 8
# Allowed difference: some devices sum in another order each time.
_TOLERANCE = 1e-3
# Allowed error of outputs and gradients in bfloat16, relative to the largest.
_BFLOAT16 = 3e-2


@dataclasses.dataclass(frozen=True)
class Result:
  """Outcome of the self-test.

  Attributes:
    losses: losses of the training steps.
    restored: whether the restored checkpoint is bit-identical.
    difference: the largest difference of a final parameter between training
      straight through and from the checkpoint.
    problems: sentences; empty if all is well.
  """

  losses: tuple[float, ...]
  restored: bool
  difference: float
  problems: tuple[str, ...]


def run() -> Result:
  """Trains on digits, saves, restores and trains the same steps again.

  Uses all devices. Leaves nothing behind.
  """
  batch_size = 16 * jax.device_count()
  parsed = resolving.resolve(
    {
      "total_steps": _STEPS,
      "loss": "softmax_xent",
      "input": {
        "data": "digits",
        "batch_size": batch_size,
        "pp": "value_range(-1, 1)",
      },
      "model": {
        "name": "vit",
        "patch_size": 4,
        "width": 32,
        "depth": 1,
        "num_heads": 2,
      },
      "optim": {"name": "adam", "learning_rate": 1e-2},
    },
    checks.problems,
  )
  source = sources.open_source("digits", "train")
  mesh = sharding.make_mesh()
  parts = program.assemble(parsed, source, mesh)
  state = start.random_state(parts)

  def train(state, first, stop):
    losses = []
    batches = pipeline.train_batches(
      source,
      parts.preprocess,
      batch_size=batch_size,
      seed=0,
      start_step=first,
      total_steps=stop,
    )
    for batch in batches:
      batch = jax.device_put(batch, sharding.over_batch(mesh))
      state, metrics = parts.train_step(state, batch)
      losses.append(float(metrics["train/loss"]))
    return state, losses

  state, first = train(state, 0, _SAVED)
  items = {"params": state.params, "opt_state": state.opt_state}
  saved = jax.device_get(items)
  with tempfile.TemporaryDirectory() as folder:
    directory = pathlib.Path(folder) / "checkpoints"
    with Checkpointer(directory, async_save=False) as checkpointer:
      checkpointer.save(_SAVED, items, is_last=True)
    with Checkpointer(directory) as checkpointer:
      shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
        items,
      )
      found = checkpointer.restore(shapes)
      assert found is not None  # it was saved above
      _, restored, _ = found
  same = jax.tree.map(np.array_equal, saved, jax.device_get(restored))
  is_same = all(jax.tree.leaves(same))
  again = step_lib.TrainState(
    step=jax.device_put(np.int32(_SAVED), parts.shardings.step), **restored
  )
  straight, last = train(state, _SAVED, _STEPS)
  resumed, _ = train(again, _SAVED, _STEPS)
  difference = _difference(straight.params, resumed.params)
  losses = (*first, *last)
  problems = judge(losses, is_same, difference)
  if jax.default_backend() != "cpu":
    problems += attention_problems()
  return Result(losses, is_same, difference, tuple(problems))


def attention_problems() -> list[str]:
  """Differences of fused attention from plain attention on this device."""
  num_heads, shape = 2, (2, 197, 128)
  *keys, last = jax.random.split(jax.random.key(0), 5)
  *inputs, grad = (jax.random.normal(key, shape, jnp.bfloat16) for key in keys)
  cases = [inputs]
  if jax.default_backend() != "gpu":  # whose kernels take no bias
    bias = jax.random.normal(last, (1, num_heads, 197, 197))
    cases.append([*inputs, bias])

  def plain(*inputs):
    return attention.attend(*inputs[:3], num_heads=num_heads, **_bias(inputs))[
      0
    ]

  def fused(*inputs):
    return fused_attention.attention(
      *inputs[:3], num_heads=num_heads, **_bias(inputs)
    )

  @functools.partial(jax.jit, static_argnums=0)
  def both(fn, inputs, grad):
    out, vjp = jax.vjp(fn, *inputs)
    return [x.astype(jnp.float32) for x in (out, *vjp(grad))]

  advice = "set config.model.attention='xla'."
  try:
    got, want = (
      [x for inputs in cases for x in both(fn, inputs, grad)]
      for fn in (fused, plain)
    )
  except Exception as e:  # also of the compiler
    return [f"Fused attention fails ({str(e).splitlines()[0]}): {advice}"]
  error = max(
    float(jnp.abs(x - y).max() / jnp.abs(y).max()) for x, y in zip(got, want)
  )
  if error < _BFLOAT16:
    return []
  return [f"Fused attention has a relative error of {error:g}: {advice}"]


def _bias(inputs) -> dict:
  """Keywords of attention for a bias after query, key and value."""
  if len(inputs) == 3:
    return {}
  return {"bias": inputs[3], "mask": jnp.tri(197, dtype=bool)[None, None]}


def judge(losses, restored: bool, difference: float) -> list[str]:
  """Problems of these outcomes, see `Result`."""
  problems = []
  if not all(map(math.isfinite, losses)):
    problems.append("The loss of a training step is not finite.")
  elif np.mean(losses[-4:]) >= 0.9 * np.mean(losses[:4]):
    problems.append(
      f"Training does not lower the loss: {losses[0]:.3f} -> {losses[-1]:.3f}."
    )
  if not restored:
    problems.append("A restored checkpoint differs from what was saved.")
  if not difference <= _TOLERANCE:
    problems.append(
      "Repeating the same steps gives different parameters: they differ by "
      f"{difference:g}."
    )
  return problems


def _difference(a, b) -> float:
  a, b = (trees.flatten(jax.device_get(tree)) for tree in (a, b))
  return max(float(np.abs(a[name] - b[name]).max()) for name in a)
