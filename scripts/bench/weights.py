"""Export of the parameters of a ViT-S/16, and loading them again.

22M parameters in float32, in each kind of file. The disk is the one that holds
temporary files.
"""

import pathlib
import tempfile

from scripts.bench import recipe, turns

_FILES = ("weights.npz", "weights.safetensors")


def measure(repetitions: int) -> list[dict]:
  """Rows of seconds."""
  from vitjax import weights

  parts, state = recipe.make(batch_size=1)
  with tempfile.TemporaryDirectory() as folder:
    paths = [pathlib.Path(folder) / name for name in _FILES]
    calls = {}
    for path in paths:
      calls[f"write {path.suffix}"] = lambda path=path: weights.save(
        path, state.params, parts.model, layout="big_vision"
      )
      calls[f"read {path.suffix}"] = lambda path=path: weights.load(
        path, parts.model
      )
    found = turns.seconds(calls, repetitions)
    sizes = {path.suffix: path.stat().st_size / 1e6 for path in paths}
  return [
    {
      "benchmark": "weights",
      "contestant": name,
      "megabytes": round(sizes[name.split()[1]], 1),
      "seconds": turns.summary(seconds),
    }
    for name, seconds in found.items()
  ]
