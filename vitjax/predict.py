r"""Says what is on images: the most likely classes, or captions, of each.

  python -m vitjax.predict --model=runs/mine photo.jpg photos/
  python -m vitjax.predict --model=runs/mine photos/ --json > answers.jsonl
  python -m vitjax.predict --model=runs/mine photos/ --features=out.npz
  python -m vitjax.predict --model=LiT-B16B photo.jpg --texts="a cat,a dog"

A folder stands for all images below it, in the order of their names: jpg,
jpeg, png, webp, bmp, gif, tif, tiff. Images are prepared as the model's own
evaluation prepares them, whatever their size; where that does not resize, as
for digits of 8x8 pixels, other sizes need --resize. EXIF orientation is
ignored, as it is in training (the orientation that a TIFF has of its own is
not).

--features writes "features" (n, d), what the head of the model sees or the
embedding of an image tower, and "files" (n,), their paths.

What cannot be read is named on stderr and left out. Exit codes: 0 some image
was read (with --strict: all were), 1 none was, or another error.
"""

import dataclasses
import functools
import json
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from typing import Any

import numpy as np
from absl import app, flags, logging

from vitjax import command_line

_MODEL = flags.DEFINE_string(
  "model",
  None,
  "Run folder, exported file or name of published weights.",
  required=True,
)
_STEP = flags.DEFINE_string(
  "step", "latest", "Checkpoint of a run folder: latest, best or a number."
)
_EMA = flags.DEFINE_bool(
  "ema", False, "The averaged parameters of a run with config.ema."
)
_PRETRAINED_DIR = flags.DEFINE_string(
  "pretrained_dir", None, "Folder or URL with the files of published names."
)
_TOP = flags.DEFINE_integer(
  "top", 5, "How many classes of each image are shown.", lower_bound=1
)
_JSON = flags.DEFINE_bool("json", False, "Print one JSON object per image.")
_FEATURES = flags.DEFINE_string(
  "features", None, "File to write the features of the images to, .npz."
)
_BATCH_SIZE = flags.DEFINE_integer(
  "batch_size", 32, "Images that go through the model at once.", lower_bound=1
)
_RESIZE = flags.DEFINE_bool(
  "resize",
  False,
  "Squeeze images to the size of a model that was trained on images of one "
  "size, and does not resize by itself.",
)
_TEXTS = flags.DEFINE_multi_string(
  "texts",
  [],
  "Captions to choose from, for a model that reads texts: once, with commas "
  "between them, or once for each caption.",
)
_STRICT = flags.DEFINE_bool(
  "strict", False, "End with code 1 if any image could not be read."
)


@dataclasses.dataclass(frozen=True)
class Prediction:
  """What a model says of one image.

  Attributes:
    file: path of the image.
    probabilities: (n,) by class or caption; None if it has neither.
    features: (d,) float32.
  """

  file: str
  probabilities: np.ndarray | None
  features: np.ndarray


def predict(
  trained,
  files: Sequence[str],
  *,
  batch_size: int = 32,
  texts: Sequence[str] = (),
  resize: bool = False,
  on_failure: Callable[[str], None] | None = None,
) -> Iterator[Prediction]:
  """Yields what the model says of each image, in the order of `files`.

  Args:
    trained: from `vitjax.load`.
    files: paths of images.
    batch_size: images that go through the model at once.
    texts: captions, for a model that reads texts.
    resize: see `Trained.prepare`.
    on_failure: called with one line for each file that cannot be read, which
      is then left out; None raises it.

  Raises:
    ValueError: if an image cannot be read and `on_failure` is None; if there
      are texts for a model that reads none; or if what the model says is not
      finite.
  """
  if texts and not trained.has_two_towers:
    raise ValueError(
      "texts are for models that read texts, such as LiT and SigLIP; this one "
      "has classes of its own."
    )
  text_features = trained.text_features(texts) if texts else None
  prepare = functools.partial(trained.prepare, resize=resize)
  size = min(batch_size, max(1, len(files)))
  for names, images in _batches(prepare, files, size, on_failure):
    # One size of batches, so that the model is compiled once.
    batch = np.zeros((size, *images[0].shape), np.float32)
    batch[: len(images)] = images
    logits, features = trained.forward(batch)
    if texts:
      logits = trained.compare(features, text_features)
    for i, name in enumerate(names):
      row = None if logits is None else logits[i]
      if not (np.isfinite(features[i]).all() and _is_finite(row)):
        raise ValueError(f"{name}: what the model says is not finite.")
      p = None if row is None else trained.probabilities(row)
      yield Prediction(name, p, features[i])


def _is_finite(row: np.ndarray | None) -> bool:
  return row is None or bool(np.isfinite(row).all())


def _batches(
  prepare, files: Sequence[str], size: int, on_failure
) -> Iterator[tuple[list[str], list[np.ndarray]]]:
  """Names and prepared images; decodes ahead of the model, but not far."""
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


def find_images(paths: Iterable[str]) -> list[str]:
  """Files as they are, and the images below folders.

  Raises:
    ValueError: if there are none.
  """
  from vitjax.data import folder

  paths, files = list(paths), []
  for path in paths:
    if os.path.isdir(path):
      files += [os.fspath(x) for x in folder.walk(pathlib.Path(path))[0]]
    else:
      files.append(path)
  if not files:
    given = f"in {', '.join(paths)}" if paths else "given"
    raise ValueError(
      f"there are no images {given}. Give files, or folders with files that "
      f"end in {' '.join(folder.EXTENSIONS)}."
    )
  return files


def names_of(trained, texts: Sequence[str]) -> tuple[str, ...] | None:
  """What to call what the probabilities are of, or None for numbers."""
  return tuple(texts) or trained.labels


def to_json(
  prediction: Prediction, names: Sequence[str] | None, top: int
) -> dict[str, Any]:
  """File and the best classes as plain data, the most likely first."""
  result: dict[str, Any] = {"file": prediction.file}
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
  return result


def to_table(
  prediction: Prediction, names: Sequence[str] | None, top: int
) -> str:
  """The file, and below it a line for each of the best classes."""
  lines = [prediction.file]
  for row in to_json(prediction, names, top).get("top", ()):
    name = row["name"] if names else f"class {row['label']}"
    lines.append(f"  {100 * row['probability']:6.2f} %  {name}")
  return "\n".join(lines)


def _texts(values: Sequence[str]) -> list[str]:
  if len(values) == 1:
    values = values[0].split(",")
  texts = [text.strip() for text in values]
  if not all(texts):
    raise ValueError(f"--texts={','.join(texts)!r} has an empty caption.")
  return texts


def _check_out(path: str) -> None:
  """Raises ValueError for a file that could not be written in the end."""
  folder = os.path.dirname(path) or "."
  if not path.endswith(".npz") or not os.path.isdir(folder):
    raise ValueError(
      f"--features={path} has to be a file that ends in .npz, in a folder "
      "that exists."
    )
  if not os.access(folder, os.W_OK):
    raise ValueError(f"--features={path}: no right to write into {folder}.")


def _write_features(path: str, kept: Sequence[Prediction]) -> None:
  from vitjax.weights import npz

  with npz.atomic(path) as temporary, open(temporary, "wb") as f:
    np.savez(
      f,
      features=np.stack([x.features for x in kept]),
      files=np.array([x.file for x in kept]),
    )


def run(paths: Sequence[str]) -> int:
  """Does what the flags say; returns the exit code."""
  if _FEATURES.value:
    _check_out(_FEATURES.value)
  texts = _texts(_TEXTS.value) if _TEXTS.value else []
  files = find_images(paths)

  import vitjax

  step = int(_STEP.value) if _STEP.value.isdigit() else _STEP.value
  trained = vitjax.load(
    _MODEL.value,
    step=step,
    ema=_EMA.value,
    pretrained_dir=_PRETRAINED_DIR.value,
  )
  if trained.has_two_towers and not (texts or _FEATURES.value):
    raise ValueError(
      "this model has no classes: give captions to choose from, "
      '--texts="a cat,a dog", or --features=out.npz.'
    )
  failures, kept, num_read = [], [], 0

  def on_failure(line: str) -> None:
    failures.append(line)
    print(f"vitjax.predict: {line}", file=sys.stderr)

  names, form = names_of(trained, texts), to_json if _JSON.value else to_table
  for prediction in predict(
    trained,
    files,
    batch_size=_BATCH_SIZE.value,
    texts=texts,
    resize=_RESIZE.value,
    on_failure=on_failure,
  ):
    if prediction.probabilities is not None:
      shown = form(prediction, names, _TOP.value)
      print(json.dumps(shown) if _JSON.value else shown, flush=True)
    num_read += 1
    if _FEATURES.value:
      kept.append(prediction)
  if failures:
    print(
      f"vitjax.predict: {len(failures)} of {len(files)} images could not be "
      "read.",
      file=sys.stderr,
    )
  failed = not num_read or (_STRICT.value and bool(failures))
  if _FEATURES.value and not failed:
    _write_features(_FEATURES.value, kept)
    print(
      f"vitjax.predict: wrote the features of {num_read} images to "
      f"{_FEATURES.value}.",
      file=sys.stderr,
    )
  return int(failed)


def main(argv: list[str]) -> None:
  """Predicts, and reports errors in one line."""
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
  os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
  logging.set_verbosity(logging.WARNING)
  try:
    code = run(argv[1:])
  except BrokenPipeError:  # whoever reads has seen enough, as `head` has
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    code = 0
  except (ValueError, OSError, RuntimeError, ImportError) as e:
    raise SystemExit(f"vitjax.predict: {e}") from None
  sys.exit(code)


if __name__ == "__main__":
  app.run(main, flags_parser=command_line.parse_flags)
