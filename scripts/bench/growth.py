"""How the cost of a train step grows with model, image size and batch size.

One of the three changes at a time. FLOPs are those of `vitjax.models.flops`,
and `temporaries` is what the compiled step needs beside state and batch.
"""

import jax
import numpy as np

from scripts.bench import recipe, turns

_BASE = {"variant": "S/16", "image_size": 224, "batch_size": 8}
_GRID = {
  "variant": ("Ti/16", "S/16", "B/16"),
  "image_size": (128, 224, 384, 512),
  "batch_size": (1, 4, 8, 16, 32),
}


def _make(case: dict):
  """What to call, its FLOPs, and bytes of temporaries."""
  from vitjax.models import flops
  from vitjax.parallel import sharding

  parts, state = recipe.make(**case)
  batch = recipe.example_batch(case["batch_size"], case["image_size"])
  batch = jax.device_put(batch, sharding.over_batch(parts.mesh))
  step = parts.train_step.lower(state, batch).compile()

  def train():
    nonlocal state
    state, metrics = step(state, batch)
    return jax.block_until_ready(metrics)

  return (
    train,
    flops.train(parts.model, batch["image"].shape),
    step.memory_analysis().temp_size_in_bytes,
  )


def measure(repetitions: int) -> list[dict]:
  """Rows: seconds, images and FLOPs a second, MiB of temporaries."""
  cases = {
    f"{name} {value}": _BASE | {name: value}
    for name, values in _GRID.items()
    for value in values
  }
  # By their values, as three of them are the base.
  made = {}
  for case in cases.values():
    key = tuple(case.values())
    if key not in made:
      made[key] = _make(case)
  found = turns.seconds({key: x[0] for key, x in made.items()}, repetitions)
  rows = []
  for name, case in cases.items():
    key = tuple(case.values())
    _, operations, temporaries = made[key]
    seconds = np.array(found[key])
    rows.append(
      {
        "benchmark": "growth",
        "contestant": name,
        **case,
        "seconds": turns.summary(seconds),
        "images_per_second": turns.summary(case["batch_size"] / seconds),
        "gigaflops_per_second": turns.summary(operations / 1e9 / seconds),
        "temporaries_mib": round(temporaries / 2**20),
      }
    )
  return rows
