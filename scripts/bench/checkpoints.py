"""Saving and restoring the state of a ViT-S/16 with Adam: 22M parameters.

`blocked` is how long a step waits for a save that continues in the background,
`saved` until it is on the disk, `restored` until it is back on the device. The
disk is the one that holds temporary files.
"""

import pathlib
import tempfile
import time

import jax

from scripts.bench import network, turns


def measure(repetitions: int, **options) -> list[dict]:
  """Rows of seconds; `options` change the model."""
  from vitjax.checkpoint import checkpointer

  made = network.make("vit", network.ADAM, **{"variant": "S/16", **options})
  state = jax.block_until_ready(made.init(jax.random.key(0)))
  items = {"params": state.params, "opt_state": state.opt_state}
  target = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), items
  )
  found = {"blocked": [], "saved": [], "restored": []}
  with (
    tempfile.TemporaryDirectory() as folder,
    checkpointer.Checkpointer(pathlib.Path(folder) / "checkpoints") as saver,
  ):
    for step in range(repetitions + 1):
      start = time.perf_counter()
      saver.save(step + 1, items, info={})
      found["blocked"].append(time.perf_counter() - start)
      saver.wait()
      found["saved"].append(time.perf_counter() - start)
      start = time.perf_counter()
      jax.block_until_ready(saver.restore(target)[1])
      found["restored"].append(time.perf_counter() - start)
  return [
    {
      "benchmark": "checkpoint",
      "contestant": name,
      "megabytes": round(
        sum(x.nbytes for x in jax.tree.leaves(items)) / 1e6, 1
      ),
      "seconds": turns.summary(seconds[1:]),
    }
    for name, seconds in found.items()
  ]
