"""Batches for training and evaluation, as a function of (seed, step) alone.

Training numbers its examples without end: row r of step t is ordinal
`t * batch_size + r`. The ordinal gives the example (see `order`), and (seed,
ordinal) the randomness of its ops. So a run that resumes at step t, on any
number of processes and threads, sees exactly what an uninterrupted run sees,
and each epoch has each example exactly once, unless classes are sampled.
With repeats=N, N consecutive ordinals share an image, and a batch lists its
ordinals in an order that keeps them apart.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np

from vitjax.data import order, seeds
from vitjax.data.pp.builder import Preprocess
from vitjax.data.pp.kinds import AnyOp, Features, is_chunk
from vitjax.data.pp.ops_general import RESERVED
from vitjax.data.sources.source import Source
from vitjax.data.tf import tf

# Examples of a chunk. Chunks of small images of one size are larger: up to a
# quarter of a batch, and up to this number of bytes.
_CHUNK, _CHUNK_BYTES = 32, 2**18
PREFETCH = 2  # batches


class InputError(ValueError):
  """An example cannot be read or decoded."""


def train_batches(
  source: Source,
  preprocess: Preprocess,
  *,
  batch_size: int,
  seed: int,
  start_step: int,
  total_steps: int,
  sampling: str | None = None,
  repeats: int = 1,
  views: int | None = None,
  prefetch: int = PREFETCH,
  process_index: int = 0,
  process_count: int = 1,
) -> Iterator[dict[str, np.ndarray]]:
  """Yields the batches of steps `start_step` .. `total_steps - 1`.

  Args:
    source: the training examples.
    preprocess: ops that make images of one size.
    batch_size: examples per step, over all processes.
    seed: seed of the order of examples and of the random ops.
    start_step: number of steps that are already done.
    total_steps: number of steps of the whole run.
    sampling: how often each class is shown, see `order.by_class`. None: each
      example once in each epoch.
    repeats: copies of each image, each with random ops of its own.
      MultiGrain, https://arxiv.org/abs/1902.05509; Augment your batch,
      https://arxiv.org/abs/1901.09335. Copies are about
      `batch_size / repeats` rows apart, so neighbours are different images.
    views: how many different views of an image the random ops make: those of
      its visit n, which is an epoch or a copy in one, are those of n mod
      `views`, the feature "view". None: each visit has its own, and there is no
      such feature.
    prefetch: batches buffered ahead.
    process_index: index of this process.
    process_count: number of processes. Process p gets the p-th part of each
      batch.

  Yields:
    Arrays with a leading axis of `batch_size // process_count`.

  Raises:
    InputError: if an example cannot be read; names it.
    ValueError: if the batch does not divide, images differ in size, or their
      classes are needed and not known.
  """
  rows = _rows_per_process(batch_size, process_index, process_count)
  if not 1 <= repeats <= batch_size:
    raise ValueError(
      f"repeats={repeats} must be in 1..batch_size={batch_size}."
    )
  rows_in_order = np.concatenate(
    [np.arange(i, batch_size, repeats) for i in range(repeats)]
  )
  if not 0 <= start_step <= total_steps:
    raise ValueError(
      f"start_step={start_step} must be in 0..total_steps={total_steps}."
    )
  order_of = source.training_order(sampling, seed)

  def examples_of(counters: tf.Tensor) -> Features:
    step, row = counters // rows, process_index * rows + counters % rows
    ordinals = step * batch_size + tf.gather(rows_in_order, row)
    return _train_examples(
      ordinals, order_of, seed, repeats, views, source.num_examples
    )

  dataset = _dataset(
    source, preprocess, rows, examples_of, start_step, total_steps, prefetch
  )
  return _batches(
    dataset, source, preprocess, rows, examples_of, start_step, total_steps
  )


def eval_batches(
  source: Source,
  preprocess: Preprocess,
  *,
  batch_size: int,
  process_index: int = 0,
  process_count: int = 1,
) -> Iterable[dict[str, np.ndarray]]:
  """Batches with every example exactly once, in order; iterable many times.

  The last batch is padded with rows where `mask` is False and `index` is -1;
  each process yields the same number of batches. Random ops give the same
  result each time.

  Args, Yields and Raises are those of `train_batches`; there is also `mask`,
  bool [rows].
  """
  rows = _rows_per_process(batch_size, process_index, process_count)
  total = source.num_examples
  num_batches = -(-total // batch_size)

  def examples_of(counters: tf.Tensor) -> Features:
    step, row = counters // rows, counters % rows
    ordinals = step * batch_size + process_index * rows + row
    return {
      "index": tf.minimum(ordinals, total - 1),
      "mask": ordinals < total,
      "seed": seeds.example_seeds(0, ordinals, seeds.EXAMPLE),
    }

  dataset = _dataset(source, preprocess, rows, examples_of, 0, num_batches)
  return _Again(
    functools.partial(
      _batches, dataset, source, preprocess, rows, examples_of, 0, num_batches
    )
  )


@dataclasses.dataclass(frozen=True)
class _Again(Iterable[dict[str, np.ndarray]]):
  """Starts from the beginning with each iterator."""

  start: Callable[[], Iterator[dict[str, np.ndarray]]]

  def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
    return self.start()


def example(
  source: Source, preprocess: Preprocess, index: int
) -> dict[str, np.ndarray]:
  """One example, as in a row of `eval_batches`, to inspect.

  Raises:
    InputError: if it cannot be read.
  """
  ordinal = tf.constant([index], tf.int64)
  chosen = {
    "index": ordinal,
    "seed": seeds.example_seeds(0, ordinal, seeds.EXAMPLE),
  }
  try:
    features = _example(source, preprocess, chosen)
  except Exception as error:  # Each decoder has errors of its own.
    raise InputError(
      f"Cannot read {source.describe(index)}: {_first_line(error)}"
    ) from error
  return {name: value.numpy() for name, value in features.items()}


def _example(source, preprocess, chosen: Features) -> Features:
  features = _fetch(source, chosen)
  features = {name: value[0] for name, value in features.items()}
  return preprocess(_parse(source, features))


def example_spec(
  source: Source,
  preprocess: Preprocess,
  batch_size: int,
  views: int | None = None,
) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes and types of a training batch, without reading any example.

  Images have the type in which they leave the host; what the network sees is
  `jax.eval_shape(preprocess.on_device, spec)`.
  """
  order_of = source.training_order(None, seed=0)

  def examples_of(counters: tf.Tensor) -> Features:
    return _train_examples(counters, order_of, 0, 1, views, source.num_examples)

  dataset = _dataset(source, preprocess, batch_size, examples_of, 0, 1)
  return {
    name: jax.ShapeDtypeStruct(spec.shape, spec.dtype.as_numpy_dtype)
    for name, spec in dataset.element_spec.items()
  }


def host_bytes(
  spec: dict[str, jax.ShapeDtypeStruct],
  process_count: int = 1,
  prefetch: int = PREFETCH,
) -> int:
  """Bytes of the batches that a process holds while it trains.

  Counts the buffered batches, the one being made and the one being transferred.
  Does not count the program itself and the examples that its threads work on:
  for each core and each stage of the preprocessing one example, or a chunk of
  32 (up to a quarter of a batch for small images of one size).

  Args:
    spec: from `example_spec`.
    process_count: number of processes among which a batch is split.
    prefetch: batches buffered ahead.
  """
  batch = sum(math.prod(x.shape) * x.dtype.itemsize for x in spec.values())
  return batch // process_count * (prefetch + 2)


def run_once(
  preprocess: Preprocess, image: bytes | np.ndarray
) -> dict[str, np.ndarray]:
  """Applies the host's ops to one image that belongs to no data set.

  Args:
    preprocess: preprocessing of an eval. Random ops give the same result each
      time.
    image: the bytes of a file, or uint8 (h, w, c).

  Returns:
    The features, as in a row of a batch. A label or texts that the ops add have
    no meaning.

  Raises:
    ValueError: if the image cannot be decoded or processed; in one line.
  """
  features = {
    "image": tf.constant(image),
    "label": tf.constant(0),
    "labels": tf.constant([0.0]),
    "captions": tf.constant([""]),
    "text": tf.constant(""),
    "seed": seeds.example_seeds(0, tf.constant([0], tf.int64), seeds.EXAMPLE)[
      0
    ],
  }
  try:
    features = preprocess(features)
  except Exception as error:  # Each decoder has errors of its own.
    raise ValueError(_first_line(error)) from error
  return {name: value.numpy() for name, value in features.items()}


def _first_line(error: Exception) -> str:
  """The reason of an error, without TensorFlow's lines about its graph."""
  reason = getattr(error, "message", None) or str(error)
  line = (reason.strip() or type(error).__name__).splitlines()[0]
  return re.sub(r"^\{\{.*?\}\} | \[Op:.*$", "", line)


def _rows_per_process(batch_size, process_index, process_count) -> int:
  if batch_size < 1 or batch_size % process_count:
    raise ValueError(
      f"batch_size={batch_size} must be positive and divide over "
      f"{process_count} processes."
    )
  if not 0 <= process_index < process_count:
    raise ValueError(
      f"process_index={process_index} is not in 0..{process_count - 1}."
    )
  return batch_size // process_count


def _train_examples(
  ordinals: tf.Tensor,
  order_of: order.Order,
  seed: int,
  repeats: int,
  views: int | None,
  num_examples: int,
) -> Features:
  """Index and seed of the examples with these ordinals, and their view."""
  index, numbers, more = order_of(ordinals // repeats), ordinals, {}
  if views is not None:
    epoch = ordinals // repeats // num_examples
    view = (epoch * repeats + ordinals % repeats) % views
    numbers, more = index * views + view, {"view": view}
  own = seeds.example_seeds(seed, numbers, seeds.EXAMPLE)
  return {"index": index, "seed": own, **more}


def _dataset(
  source: Source,
  preprocess: Preprocess,
  rows: int,
  examples_of: Callable[[tf.Tensor], Features],
  start_step: int,
  total_steps: int,
  prefetch: int = PREFETCH,
) -> tf.data.Dataset:
  """Batches of `rows`; memory is bounded by what the threads hold."""

  def parse(features: Features) -> Features:
    return _parse(source, features)

  chunk = _chunk_size(source, rows)
  dataset = tf.data.Dataset.range(start_step * rows, total_steps * rows)
  dataset = preprocess.host(
    dataset.batch(chunk),
    before=[
      AnyOp(lambda counters: _fetch(source, examples_of(counters))),
      parse if source.image_shape is None else AnyOp(parse),
    ],
    after=[AnyOp(_select)],
    chunk_size=chunk,
    batch_size=rows,
  )
  options = tf.data.Options()
  options.deterministic = True
  return dataset.prefetch(prefetch).with_options(options)


def _chunk_size(source: Source, rows: int) -> int:
  if source.image_shape is None:
    return _CHUNK
  fitting = _CHUNK_BYTES // math.prod(source.image_shape)
  return max(_CHUNK, min(rows // 4, fitting))


def _fetch(source: Source, examples: Features) -> Features:
  return {**source.fetch(examples["index"]), **_owned(examples)}


def _parse(source: Source, features: Features) -> Features:
  """Parses one example; masks the rows that pad a batch."""
  owned = _owned(features)
  others = {k: v for k, v in features.items() if k not in owned}
  if "mask" in owned:
    owned["index"] = tf.where(owned["mask"], owned["index"], -1)
  return {**source.parse(others), **owned}


def _owned(features: Features) -> Features:
  return {k: features[k] for k in RESERVED if k in features}


def _select(features: Features) -> Features:
  """Keeps the features that go to the accelerator: numbers of one shape."""
  leading = int(is_chunk(features))
  image = features.get("image")
  if image is not None and image.dtype == tf.string:
    raise ValueError(
      "Images are still encoded after preprocessing: start it with 'decode' or "
      "'decode_jpeg_and_inception_crop(size)'."
    )
  if image is not None and not image.shape[leading:].is_fully_defined():
    raise ValueError(
      f"Images of shape {image.shape[leading:]} cannot make a batch: add an op "
      "such as 'resize(224)' or 'central_crop(224)' to the preprocessing."
    )
  return {
    name: value
    for name, value in features.items()
    if name != "seed"
    and value.dtype != tf.string
    and value.shape[leading:].is_fully_defined()
  }


def _batches(
  dataset: tf.data.Dataset,
  source: Source,
  preprocess: Preprocess,
  rows: int,
  examples_of: Callable[[tf.Tensor], Features],
  start_step: int,
  total_steps: int,
) -> Iterator[dict[str, np.ndarray]]:
  iterator = iter(dataset)
  for step in range(start_step, total_steps):
    try:
      batch = next(iterator)
    except tf.errors.OpError as error:
      # The chunk in which it is may reach beyond this batch.
      stop = (step + 1) * rows + _chunk_size(source, rows)
      stop = min(stop, total_steps * rows)
      for counter in range(step * rows, stop):
        examples = examples_of(tf.constant([counter], tf.int64))
        _try_example(source, preprocess, examples, counter // rows)
      raise InputError(
        f"Reading {source.data!r}, split {source.split!r}, failed at step "
        f"{step}, but each example of the step can be read now: the storage "
        f"may have failed for a moment. Run the same command to resume. The "
        f"error was: {error}"
      ) from error
    batch = {name: value.numpy() for name, value in batch.items()}
    _check_labels(source, batch)
    yield batch


def _check_labels(source: Source, batch: dict[str, np.ndarray]) -> None:
  """Raises an InputError for labels that no class has, such as a -1."""
  label = batch.get("label")
  if label is None or not source.num_classes:
    return
  least = -1 if source.has_unknown else 0
  bad = (label < least) | (label >= source.num_classes)
  if bad.any():
    first = int(np.argmax(bad))
    example = source.describe(int(batch["index"][first]))
    raise InputError(
      f"{example} of {source.data!r}, split {source.split!r}, has label "
      f"{label[first]}, but the data set has classes "
      f"0..{source.num_classes - 1}. Splits whose labels are secret use -1: "
      "choose another split."
    )


def _try_example(source, preprocess, examples, step) -> None:
  """Raises an InputError if this example cannot be read."""
  index = int(examples["index"][0])
  try:
    _example(source, preprocess, examples)
  except Exception as error:  # Each decoder has errors of its own.
    raise InputError(
      f"Cannot read {source.describe(index)} (example {index} of "
      f"{source.data!r}, split {source.split!r}, step {step}): "
      f"{_first_line(error)}\n"
      "Put the original back and run the same command to resume. If there is "
      "no original, replace or remove this example and start a new run in "
      "another --workdir: a run cannot resume on other data. `python -m "
      "vitjax.data check` lists all such files at once."
    ) from error
