"""Fused attention against plain attention: values, gradients and speed.

Errors are relative to the largest number of plain attention in float32 on the
CPU, for the first image. Seconds are of the forward and the backward pass.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from scripts.accelerator_check import skip
from scripts.bench import turns

TOKENS = (196, 197, 577, 1025)
CASES = [f"{dtype} {n}" for n in TOKENS for dtype in ("bfloat16", "float32")]
# Images, heads and their width: those of B/16.
_SHAPE, _TINY = (64, 12, 64), (1, 2, 8)
_TOLERANCE = {"bfloat16": 3e-2, "float32": 3e-3}


def _with_gradients(fn, num_heads: int, *arrays):
  """Output and gradients of query, key and value, as one tuple."""
  *inputs, grad = arrays
  out, vjp = jax.vjp(lambda *x: fn(*x, num_heads), *inputs)
  return out, *vjp(grad)


def run(case: str, tiny: bool) -> dict:
  from vitjax.models import attention, fused_attention

  dtype, tokens = case.split()
  images, heads, width = _TINY if tiny else _SHAPE
  random = np.random.default_rng(0)
  shape = (images, int(tokens), heads * width)
  arrays = [
    jnp.asarray(random.standard_normal(shape, np.float32), dtype)
    for _ in range(4)
  ]
  try:
    fused_attention.wanted("fused", *arrays[:2], heads)
  except ValueError as e:
    raise skip.Skip(str(e)) from e

  def plain(query, key, value, num_heads):
    return attention.attend(query, key, value, num_heads)[0]

  calls = {
    name: jax.jit(functools.partial(_with_gradients, fn, heads))
    for name, fn in (
      ("plain", plain),
      ("fused", fused_attention.attention),
    )
  }
  cpu = jax.devices("cpu")[0]
  with jax.default_matmul_precision("highest"), jax.default_device(cpu):
    first = [jax.device_put(np.asarray(x[:1], np.float32), cpu) for x in arrays]
    exact = jax.jit(functools.partial(_with_gradients, plain, heads))(*first)
  facts = {}
  for name, call in calls.items():
    got = call(*arrays)
    facts[f"{name}_errors"] = [
      float(np.abs(np.asarray(x[:1], np.float32) - y).max() / np.abs(y).max())
      for x, y in zip(got, map(np.asarray, exact))
    ]
  found = turns.seconds(
    {
      name: lambda call=call: jax.block_until_ready(call(*arrays))
      for name, call in calls.items()
    },
    1 if tiny else 10,
  )
  facts |= {
    f"{name}_ms": 1e3 * turns.summary(x)["median"] for name, x in found.items()
  }
  facts["times_plain"] = turns.ratios(found, "fused", "plain")
  if max(facts["fused_errors"]) > _TOLERANCE[dtype]:
    raise RuntimeError(f"errors {facts['fused_errors']}, {facts}")
  return facts
