"""The teacher's outputs on disk, by (view, image).

One file holds the outputs of one teacher for one way to make views, so runs
that agree in both share it. Rows that are not known yet are NaN. A run that is
killed finds what it has written.
"""

import hashlib
import json
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping

import jax
import numpy as np

from vitjax.config.schema import RunConfig
from vitjax.data.sources.source import Source
from vitjax.distill.teacher import Loaded
from vitjax.distill.teaching import Teaching
from vitjax.parallel import sharding

Batch = Mapping[str, np.ndarray]


def with_outputs(
  batches: Iterable[Batch],
  run: RunConfig,
  source: Source,
  teaching: Teaching,
  teacher: Loaded,
  normalise: Callable[[Mapping], Mapping],
  mesh: jax.sharding.Mesh,
) -> Iterator[dict[str, np.ndarray]]:
  """The batches with the teacher's outputs, from the cache where it has them.

  Args:
    batches: of `pipeline.train_batches`, with views.
    run: the config.
    source: the training data.
    teaching: that of the run.
    teacher: its teacher's weights, on the devices.
    normalise: turns the uint8 images of a batch into the model's input.
    mesh: the devices.
  """
  outputs = Cache(run, source, teaching.teacher.width, teacher.checksum)

  @jax.jit
  def apply(weights, images):
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      return teaching.teach(weights, normalise(images))["teacher"]

  def teach(batch):
    images = {"image": batch["image"]}
    images = jax.device_put(images, sharding.over_batch(mesh))
    return np.asarray(apply(teacher.weights, images))

  return outputs.add_to(batches, teach)


class Cache:
  """Outputs (views, images, width) in a file.

  Args:
    run: a config with `distill.cache` and `input.views`.
    source: the training data.
    width: logits or features of an image.
    checksum: that of the teacher's weights.
  """

  def __init__(self, run: RunConfig, source: Source, width: int, checksum: str):
    facts = [
      checksum,
      run.distill.dtype,
      source.fingerprint,
      run.seed,
      run.input.views,
      run.input.pp,
    ]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
    folder = pathlib.Path(run.distill.cache or "")
    folder.mkdir(parents=True, exist_ok=True)
    self.file = folder / f"teacher-{key}.npy"
    assert run.input.views is not None  # see `checks`
    shape = (run.input.views, source.num_examples, width)
    if not self.file.exists():
      _make(self.file, shape)
    self._outputs = np.load(self.file, mmap_mode="r+")

  def add_to(
    self, batches: Iterable[Batch], teach: Callable[[Batch], np.ndarray]
  ) -> Iterator[dict[str, np.ndarray]]:
    """The batches with the feature "teacher" instead of "view".

    Args:
      batches: of `pipeline.train_batches`.
      teach: computes the teacher's outputs for a batch that has an unknown
        row.
    """
    for batch in batches:
      features = dict(batch)
      rows = features.pop("view"), features["index"]
      outputs = self._outputs[rows]
      if np.isnan(outputs).any():
        outputs = self._outputs[rows] = teach(features)
      yield {**features, "teacher": np.asarray(outputs)}


def _make(file: pathlib.Path, shape: tuple[int, ...]) -> None:
  """Writes a file in which nothing is known; it appears complete."""
  part = file.with_suffix(".part")
  empty = np.lib.format.open_memmap(part, "w+", np.float32, shape)
  empty[:] = np.nan
  empty.flush()
  part.rename(file)
