"""Predictions of a model for image files: classes or captions, and features."""

import collections
import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from typing import Any

import numpy as np

from vitjax.config import messages
from vitjax.data.sources import folder
from vitjax.weights import npz


@dataclasses.dataclass(frozen=True)
class Prediction:
  """Prediction of a model for one image.

  Attributes:
    probabilities: (n,) of the classes or captions; None without any.
    numbers: (n,) outputs of a regression, in their units; None without any.
    features: (d,) float32.
    is_finite: whether all outputs of the model are finite numbers.
  """

  probabilities: np.ndarray | None
  features: np.ndarray
  numbers: np.ndarray | None = None
  is_finite: bool = True


def check_texts(trained, texts: Sequence[str]) -> None:
  """Raises a ValueError for captions that a model cannot read."""
  if texts and not trained.has_two_towers:
    raise ValueError(
      "texts are for models that read texts, such as LiT and SigLIP; this one "
      "has its own classes."
    )


def of_images(
  trained,
  images: Sequence[np.ndarray],
  *,
  size: int,
  text_features: np.ndarray | None = None,
) -> list[Prediction]:
  """The predictions for prepared images.

  Args:
    trained: from `vitjax.load`.
    images: from `Trained.prepare`, at most `size`.
    size: images that go through the model; those beyond `images` are zeros. The
      model is compiled once for each size.
    text_features: embeddings of captions, for a model that reads texts.
  """
  batch = np.zeros((size, *images[0].shape), np.float32)
  batch[: len(images)] = images
  logits, features = trained.forward(batch)
  if text_features is not None:
    logits = trained.compare(features, text_features)
  found = []
  for i in range(len(images)):
    row = None if logits is None else logits[i]
    outputs = [x for x in (row, features[i]) if x is not None]
    is_finite = all(np.isfinite(x).all() for x in outputs)
    p, numbers = None, None
    if trained.is_regression:
      numbers = row
    elif row is not None:
      p = trained.probabilities(row)
    found.append(Prediction(p, features[i], numbers, is_finite))
  return found


def predict(
  trained,
  files: Sequence[str],
  *,
  batch_size: int = 32,
  texts: Sequence[str] = (),
  resize: bool = False,
  on_failure: Callable[[str], None] | None = None,
) -> Iterator[tuple[str, Prediction]]:
  """Yields each file with its prediction, in the order of `files`.

  Args:
    trained: from `vitjax.load`.
    files: paths of images.
    batch_size: images that go through the model at once.
    texts: captions, for a model that reads texts.
    resize: see `Trained.prepare`.
    on_failure: called with one line for each file that cannot be read, which
      is then skipped; None: raise an error.

  Raises:
    ValueError: if an image cannot be read and `on_failure` is None; if there
      are texts for a model that reads none; or if an output is not finite.
  """
  check_texts(trained, texts)
  text_features = trained.text_features(texts) if texts else None
  prepare = functools.partial(trained.prepare, resize=resize)
  # All batches have one size, so that the model is compiled once.
  size = min(batch_size, max(1, len(files)))
  for names, images in _batches(prepare, files, size, on_failure):
    found = of_images(trained, images, size=size, text_features=text_features)
    for name, prediction in zip(names, found):
      if not prediction.is_finite:
        raise ValueError(f"{name}: the output of the model is not finite.")
      yield name, prediction


def _batches(
  prepare, files: Sequence[str], size: int, on_failure
) -> Iterator[tuple[list[str], list[np.ndarray]]]:
  """Names and prepared images; decodes one batch ahead of the model."""
  with futures.ThreadPoolExecutor() as pool:
    names, images, ahead = [], [], []
    for start in range(0, len(files) + size, size):
      chunk = files[start : start + size]
      ready = ahead
      ahead = [(name, pool.submit(prepare, name)) for name in chunk]
      for name, future in ready:
        try:
          image = future.result()
        except ValueError as e:
          if on_failure is None:
            raise
          on_failure(str(e))
          continue
        names.append(name)
        images.append(image)
        if len(images) == size:
          yield names, images
          names, images = [], []
    if images:
      yield names, images


def find_images(paths: Iterable[str]) -> tuple[list[str], list[str]]:
  """Files as they are, and the images below folders.

  Returns:
    The files to read, and other files of the folders.

  Raises:
    ValueError: if there are no files to read.
  """
  paths, files, others = list(paths), [], []
  for path in paths:
    if os.path.isdir(path):
      images, rest = folder.walk(pathlib.Path(path))
      files += map(os.fspath, images)
      others += map(os.fspath, rest)
    else:
      files.append(path)
  if not files:
    given = f"in {', '.join(paths)}" if paths else "given"
    raise ValueError(
      f"found no images {given}. Give files, or folders with files that "
      f"end in {' '.join(folder.EXTENSIONS)}."
    )
  return files, others


def describe_unknown(files: Sequence[str]) -> str:
  """A line about files that do not look like images."""
  kinds = collections.Counter(
    pathlib.Path(file).suffix or "no suffix" for file in files
  )
  counts = [f"{count} x {kind}" for kind, count in kinds.most_common()]
  return (
    f"skipped {len(files)} files without the suffix of an image: "
    f"{messages.shorten(counts)}."
  )


def names_of(trained, texts: Sequence[str]) -> tuple[str, ...] | None:
  """Names of the captions or classes; None if they have only numbers."""
  return tuple(texts) or trained.labels


def to_json(
  prediction: Prediction, names: Sequence[str] | None, top: int
) -> dict[str, Any]:
  """The best classes as plain data, the most likely first.

  Of a regression, all `numbers` by their names.
  """
  result: dict[str, Any] = {}
  p = prediction.probabilities
  if p is not None:
    best = np.argsort(-p, kind="stable")[:top]
    result["top"] = [
      {
        "label": int(i),
        "name": names[i] if names else None,
        "probability": float(p[i]),
      }
      for i in best
    ]
  if (numbers := prediction.numbers) is not None:
    known = names or list(map(str, range(len(numbers))))
    result["numbers"] = dict(zip(known, numbers.tolist()))
  return result


def to_table(
  prediction: Prediction, names: Sequence[str] | None, top: int
) -> list[str]:
  """A line for each of the best classes, or for each number."""
  lines = []
  found = to_json(prediction, names, top)
  for name, number in found.get("numbers", {}).items():
    lines.append(f"  {number:9.6g}  {name}")
  for row in found.get("top", ()):
    name = row["name"] if names else f"class {row['label']}"
    lines.append(f"  {100 * row['probability']:6.2f} %  {name}")
  return lines


def write_features(path: str, kept: Sequence[tuple[str, np.ndarray]]) -> None:
  """Writes (path, features) of files to a .npz file."""
  files, features = zip(*kept)
  with npz.atomic(path) as temporary, open(temporary, "wb") as f:
    np.savez(f, features=np.stack(features), files=np.array(files))
