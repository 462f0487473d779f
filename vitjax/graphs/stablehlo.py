"""Exports a trained model as StableHLO, with a card beside it."""

import datetime
import json
import os
import pathlib
import tempfile
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

from vitjax.graphs import facts, forward, proof

PLATFORMS = ("cpu", "cuda", "tpu")
# What jax.export guarantees for serialized modules, in days.
_BACKWARD_DAYS = 180


def export(
  trained,
  out: pathlib.Path,
  *,
  input: forward.Input = "tensor",
  tower: forward.Tower = "img",
  platforms: Sequence[str] = PLATFORMS,
  images: Sequence[str] = (),
  tolerance: float | None = None,
) -> proof.Proof:
  """Writes one tower of a model, and compares it with the model.

  `jax.export.deserialize` reads the file. The parameters are in it. The card
  beside it, m.stablehlo.json, says what it takes and how long JAX reads it.

  Args:
    trained: from `vitjax.load`.
    out: file to write.
    input: "tensor": prepared images; "pixels": uint8 images of any size.
    tower: "img" or, of a model with two towers, "txt".
    platforms: where the file can run, by JAX's names.
    images: files to compare on; by default photographs of scikit-learn.
    tolerance: largest difference of outputs, relative to the largest output.

  Raises:
    ValueError: if the model cannot be converted, or the file differs by more
      than the tolerance; it is then removed.
  """
  one = (
    forward.of_texts(trained)
    if tower == "txt"
    else forward.of_images(trained, input)
  )
  exported = _export(one, platforms)
  today = datetime.date.today()
  card = facts.of(trained, "stablehlo", input, tower, "float32") | {
    "inputs": {
      name: [str(x.dtype), *(str(i) for i in x.shape)]
      for name, x in one.inputs.items()
    },
    "output": one.outputs[0],
    "platforms": list(exported.platforms),
    "calling_convention_version": exported.calling_convention_version,
    "jax": jax.__version__,
    "written": today.isoformat(),
    "guaranteed_until": str(today + datetime.timedelta(days=_BACKWARD_DAYS)),
  }
  with tempfile.TemporaryDirectory(dir=out.parent) as folder:
    path = pathlib.Path(folder) / out.name
    path.write_bytes(exported.serialize())
    found = _prove(trained, path, input, tower, images)
    limit = proof.TOLERANCE["float32"] if tolerance is None else tolerance
    proof.check(found, limit)
    about = path.with_name(f"{path.name}.json")
    about.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    for file in (path, about):
      os.replace(file, out.parent / file.name)
  return found


def read(path: pathlib.Path) -> proof.Run:
  """The function in a file."""
  return _run(jax_export.deserialize(bytearray(path.read_bytes())))


def _run(exported: jax_export.Exported) -> proof.Run:
  return lambda x: np.asarray(exported.call(x))


def _export(one: forward.Forward, platforms: Sequence[str]):
  variables = jax.tree.map(jnp.asarray, one.variables)

  @jax.jit
  def run(*inputs):
    return one.function(variables, *inputs)

  return jax_export.export(run, platforms=tuple(platforms))(
    *one.inputs.values()
  )


def _prove(trained, path, input, tower, images) -> proof.Proof:
  run = read(path)
  if tower == "txt":
    return proof.of_texts(trained, run)
  pictures = proof.photographs(trained, images)
  if input == "tensor":
    return proof.of_tensors(trained, run, pictures)
  prepare = _run(_export(forward.preparation(trained), PLATFORMS))
  return proof.of_pixels(trained, run, prepare, pictures)
