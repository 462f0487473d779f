"""The proof that a file says what the model says: outputs on photographs."""

import dataclasses
import os
from collections.abc import Callable, Sequence

import numpy as np

from vitjax.data import pipeline
from vitjax.data.pp import builder
from vitjax.graphs import forward

# Largest difference of outputs, relative to the largest output. In float32, a
# deep network with random weights may round by more: features of BiT-S-R50x1
# differ by 1.5e-5 from those in float64, and those of its ONNX file by 1.3e-5.
TOLERANCE = {"float32": 1e-5, "float16": 1e-2, "int8": 0.5}
# Pixels of prepared images that may differ by one of 255 levels: the mean of
# two levels is rounded up or down by the last bit of a sum.
ROUNDED = 0.01
_SEED = 0

Run = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Proof:
  """How a file compares with the model.

  Attributes:
    images: number of images, or of texts.
    difference: largest difference of outputs, relative to the largest output.
    rounded: share of the prepared pixels that differ by one level; None for
      inputs that are prepared.
  """

  images: int
  difference: float
  rounded: float | None = None


def photographs(trained, files: Sequence[str] = ()) -> list[np.ndarray]:
  """Pixels of files, or of eight parts of scikit-learn's two photographs.

  They have the size of the model where its preprocessing does not resize.
  """
  decode = builder.build(f"decode(channels={trained.channels})")
  if files:
    data = [open_bytes(file) for file in files]
  else:
    from sklearn import datasets

    first, second = datasets.load_sample_images().images
    data = [
      first,
      second,
      first[:, ::-1],
      second.transpose(1, 0, 2),
      first[:301, :203],
      second[100:357],
      first[::2, ::2],
      second[:224, :224],
    ]
    if trained.channels not in (1, 3):
      data = [np.resize(x, (*x.shape[:2], trained.channels)) for x in data]
  images = [
    np.asarray(pipeline.run_once(decode, x)["image"])
    for x in map(_contiguous, data)
  ]
  if "resize" not in trained.preprocess:
    height, width = trained.image_size
    squeeze = builder.build(f"resize(({height}, {width}), antialias=True)")
    images = [
      np.asarray(pipeline.run_once(squeeze, x)["image"]) for x in images
    ]
  return images


def _contiguous(x):
  return np.ascontiguousarray(x) if isinstance(x, np.ndarray) else x


def open_bytes(file: str | os.PathLike) -> bytes:
  """The content of a file."""
  with open(file, "rb") as f:
    return f.read()


def of_tensors(trained, run: Run, images: Sequence[np.ndarray]) -> Proof:
  """Compares outputs for prepared images."""
  batch = np.stack([trained.prepare(x) for x in images])
  return Proof(len(batch), _difference(_ours(trained)(batch), run(batch)))


def of_pixels(
  trained, run: Run, prepare: Run, images: Sequence[np.ndarray]
) -> Proof:
  """Compares prepared images with ours, and the outputs for these.

  Args:
    trained: from `vitjax.load`.
    run: runs the file on pixels.
    prepare: runs only the preprocessing of the file.
    images: pixels, uint8 (h, w, c).
  """
  statistics = builder.build(
    builder.for_images(trained.preprocess)
  ).pixel_statistics
  std = np.array(statistics.get("image", {"std": [1]})["std"], np.float32)
  ours, rounded, got, want = _ours(trained), [], [], []
  for image in images:
    prepared = prepare(image[None])
    levels = np.abs(prepared[0] - trained.prepare(image)) * std
    if levels.max() > 1.01:
      raise ValueError(
        f"an image of {'x'.join(map(str, image.shape))} pixels is prepared "
        f"otherwise than by vitjax: pixels differ by {levels.max():.1f} levels "
        "of 255"
      )
    rounded.append((levels > 0.5).mean())
    got.append(run(image[None])[0])
    want.append(ours(prepared)[0])
  return Proof(
    len(images),
    _difference(np.stack(want), np.stack(got)),
    float(np.mean(rounded)),
  )


def of_texts(trained, run: Run, images: int = 8) -> Proof:
  """Compares embeddings of random token ids."""
  ours = forward.of_texts(trained)
  (shape,) = (x.shape for x in ours.inputs.values())
  vocab_size = trained.model.towers()["txt"].vocab_size
  random = np.random.default_rng(_SEED)
  ids = random.integers(vocab_size, size=(images, shape[1])).astype(np.int32)
  return Proof(images, _difference(ours(ids), run(ids)))


def check(found: Proof, tolerance: float) -> None:
  """Raises ValueError for a file that differs by more than `tolerance`."""
  if found.rounded is not None and found.rounded > ROUNDED:
    raise ValueError(
      f"{found.rounded:.2%} of the prepared pixels differ from vitjax's by one "
      f"level of 255; {ROUNDED:.0%} may. No file was written."
    )
  if not found.difference <= tolerance:
    raise ValueError(
      f"the outputs differ from vitjax's by {found.difference:.1e} of the "
      f"largest, on {found.images} inputs; {tolerance:.0e} is allowed. No file "
      "was written. If you accept it, give a larger --tolerance."
    )


def _ours(trained) -> Run:
  return forward.of_images(trained, "tensor")


def _difference(want: np.ndarray, got: np.ndarray) -> float:
  if want.shape != got.shape or not np.isfinite(got).all():
    return float("inf")
  largest = np.abs(want).max()
  return float(np.abs(want - got).max() / largest) if largest else 0.0
