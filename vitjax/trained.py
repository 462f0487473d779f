"""Trained models, ready for use: runs, exported files and published names."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Array, Float

from vitjax import losses, trees
from vitjax.checkpoint import checkpointer, step_files
from vitjax.config import places
from vitjax.data import tokenizers
from vitjax.models import batch_norm
from vitjax.run_folder import files, identity
from vitjax.weights import (
  description,
  fitting,
  imagenet,
  loading,
  published,
)

# Keys of the metadata that preparing and classifying images needs.
_NEEDED = ("model", "image_size", "channels", "preprocess", "loss")


# Images per call of the model in `Trained.classify`.
_BATCH_SIZE = 32

Image = Any  # a path, the bytes of a file, pixels or a PIL image
Batch = Float[Array | np.ndarray, "b h w c"]  # prepared images


@dataclasses.dataclass(frozen=True, repr=False)
class Trained:
  """A model with its parameters and the preprocessing of its images.

  Attributes:
    model: Linen module with the contract of `vitjax.models`.
    params: nested dicts of float32 arrays: the parameters, and beside them the
      running statistics of a model with batch normalisation.
    image_size: (height, width) in pixels that the model was trained for.
    channels: channels of the images.
    preprocess: the preprocessing string, see `vitjax.data.pp.builder`.
    class_names: names by class id, or of the targets of a regression; or None.
    metadata: all of `model.json`, to be passed on.
    source: the path or name that it was loaded from; of a repository with its
      commit.
  """

  model: Any
  params: Mapping[str, Any]
  image_size: tuple[int, int]
  channels: int
  preprocess: str
  class_names: tuple[str, ...] | None
  metadata: Mapping[str, Any]
  source: str = ""

  def __repr__(self) -> str:
    count = sum(x.size for x in jax.tree.leaves(self.variables["params"]))
    facts = [fitting.family(self.model), f"{count:,} parameters"]
    if not self.has_two_towers:
      what = "outputs" if self.is_regression else "classes"
      facts.append(f"{self.model.num_classes or 'no'} {what}")
    facts.append(f"images {_by((*self.image_size, self.channels))}")
    step = self.metadata.get("step")
    at = "" if step is None else f" at step {step:,}"
    return f"Trained({', '.join(facts)}, from {self.source!r}{at})"

  @property
  def inputs(self) -> tuple[str, ...]:
    """Features of a batch that its model is called with, in order."""
    given = self.model.example_inputs(self.image_size, self.channels)
    return ("image", "text")[: len(given)]

  @property
  def has_two_towers(self) -> bool:
    """Whether it compares images with texts and has no classes."""
    return bool(self.model.towers())

  @property
  def has_head(self) -> bool:
    """Whether it has classes, or predicts numbers."""
    return not self.has_two_towers and bool(self.model.num_classes)

  @property
  def variables(self) -> dict[str, Any]:
    """`params` as `model.apply` takes them: split into its collections."""
    return batch_norm.split(self.params)

  @property
  def is_regression(self) -> bool:
    """Whether it predicts numbers, and has no classes."""
    return losses.is_regression(self.metadata["loss"])

  @property
  def target_scale(self) -> tuple[np.ndarray, np.ndarray] | None:
    """Mean and deviation of the targets of a regression; None without."""
    if "target_mean" not in self.metadata:
      return None
    mean, deviation = (
      np.array(self.metadata[f"target_{x}"], np.float32)
      for x in ("mean", "deviation")
    )
    return mean, deviation

  @property
  def labels(self) -> tuple[str, ...] | None:
    """Readable names of the classes, by id; None if they have no names."""
    return self.class_names and imagenet.readable(self.class_names)

  @property
  def tokenizer(self) -> tokenizers.Tokenizer:
    """Maps texts to the token ids that the text tower reads.

    Raises:
      ValueError: if the model does not read texts, or its vocabulary is not
        known.
      ImportError: if the packages of `vitjax[text]` are not installed.
    """
    if "tokenizer" not in self.metadata:
      raise ValueError(
        "the vocabulary of this model is not published with it: use "
        "vitjax.data.tokenizers with a file of your own."
        if self.has_two_towers
        else "this model reads images only: it has no tokenizer."
      )
    facts = dict(self.metadata["tokenizer"])
    return tokenizers.create(facts.pop("name"), **facts)

  def classify(
    self, image: Image | Sequence[Image], *, top: int = 5, resize: bool = False
  ) -> list:
    """The most likely classes of an image, or of each of several.

      run.classify("photo.jpg")
      [("golden retriever", 0.93), ("Labrador retriever", 0.02), ...]

    Args:
      image: see `prepare`; or a list or a tuple of such.
      top: how many classes to return.
      resize: see `prepare`.

    Returns:
      (label, probability) of the `top` classes, the most likely first; for a
      list of images a list of such lists. Classes without a name have their
      number as label.

    Raises:
      ValueError: if an image cannot be read, or the model has no classes.
    """
    if not isinstance(image, list | tuple):
      return self.classify([image], top=top, resize=resize)[0]
    if not self.has_head:
      raise ValueError(
        "this model has no classes: use features(batch), or with texts "
        "similarity(batch, texts)."
      )
    if self.is_regression:
      raise ValueError(
        "this model predicts numbers and has no classes: use "
        "predict(np.stack([run.prepare(image)]))."
      )
    labels = self.labels or range(self.model.num_classes)
    found = []
    for start in range(0, len(image), _BATCH_SIZE):
      images = image[start : start + _BATCH_SIZE]
      batch = np.stack([self.prepare(x, resize=resize) for x in images])
      for p in self.probabilities(self.predict(batch)):
        best = np.argsort(-p, kind="stable")[:top]
        found.append([(str(labels[i]), float(p[i])) for i in best])
    return found

  def prepare(
    self, image: Image, *, resize: bool = False
  ) -> Float[np.ndarray, "h w c"]:
    """Prepares an image as the first eval of training prepared its images.

    Runs all of `preprocess`, including what runs on the device. Files and PIL
    images are rotated by their EXIF orientation, as in training.

    Args:
      image: a path; the bytes of a file; a PIL image; or pixels, uint8 (h, w)
        or (h, w, c) with grey, RGB or RGBA channels, or those of the model.
      resize: squeeze images that `preprocess` leaves in another size than the
        model's, which happens where all data had one size. The model was not
        trained on such images.

    Raises:
      ValueError: if it cannot be read, or is not of the model's size after
        its preprocessing; in one line.
    """
    where = "image"
    if isinstance(image, str | os.PathLike):
      where = os.fspath(image)
      try:
        image = pathlib.Path(image).read_bytes()
      except OSError as e:
        raise ValueError(f"{where}: {e.strerror}.") from e
    elif not isinstance(image, bytes):
      image = _pixels(image)
      if image.ndim == 2:
        image = image[..., None]
      shape = image.shape
      known = sorted({1, 3, 4, self.channels})
      if image.dtype != np.uint8 or len(shape) != 3 or shape[2] not in known:
        raise ValueError(
          f"{where}: {image.dtype} {shape} is not uint8 (h, w, c) with "
          f"{', '.join(map(str, known[:-1]))} or {known[-1]} channels."
        )
    if not len(image):
      raise ValueError(f"{where}: it is empty.")
    want = (*self.image_size, self.channels)
    try:
      pixels = self._preprocessed(image)
      if resize and pixels.shape != want:
        pixels = self._preprocessed(image, resize=True)
    except ValueError as e:
      raise ValueError(f"{where}: {e}") from None
    if pixels.shape != want:
      raise ValueError(
        f"{where}: it has {_by(pixels.shape)} pixels; the model takes "
        f"{_by(want)}, and its preprocessing does not resize. Allow it with "
        "resize=True (--resize)."
      )
    return np.asarray(pixels, np.float32)

  def _preprocessed(self, image, resize: bool = False) -> np.ndarray:
    from vitjax.data import pipeline  # TensorFlow: when it is needed

    preprocess = self._preprocesses[resize]
    features = pipeline.run_once(preprocess, image)
    return preprocess.on_device(features)["image"]

  def preprocess_of(self, *, resize: bool = False) -> str:
    """`preprocess` of one image, with or without a resize after decoding."""
    from vitjax.data.pp import builder

    spec = builder.for_images(self.preprocess)
    if not spec.startswith("decode"):  # the data were arrays
      spec = f"decode(channels={self.channels})|{spec}".rstrip("|")
    if not resize:
      return spec
    first, bar, rest = spec.partition("|")
    return f"{first}|resize({self.image_size}, antialias=True){bar}{rest}"

  @functools.cached_property
  def _preprocesses(self):
    """Preprocessing of one image, without and with a resize after decoding."""
    from vitjax.data.pp import builder

    return [builder.build(self.preprocess_of(resize=x)) for x in (False, True)]

  def forward(
    self, batch: Batch
  ) -> tuple[Float[np.ndarray, "b n"] | None, Float[np.ndarray, "b d"]]:
    """(outputs, features) of prepared images, see `predict` and `features`.

    Compiled once for each size of a batch. Two towers and models without a
    head have no logits.

    Raises:
      ValueError: if these are not prepared images.
    """
    want = (*self.image_size, self.channels)
    shape, dtype = np.shape(batch), getattr(batch, "dtype", None)
    if len(shape) != 4 or shape[1:] != want or dtype == np.uint8:
      raise ValueError(
        f"a batch is float32 (n, {', '.join(map(str, want))}), not {dtype} "
        f"{shape}. Make one with np.stack([run.prepare(image), ...]), or use "
        "run.classify(image)."
      )
    logits, features = self._apply(self._on_device, batch)
    if logits is not None:
      logits = np.asarray(logits)
      if self.target_scale is not None:
        mean, deviation = self.target_scale
        logits = logits * deviation + mean
    return logits, np.asarray(features)

  def predict(self, batch: Batch) -> Float[np.ndarray, "b n"]:
    """The logits of prepared images; of a regression numbers in their units.

    Raises:
      ValueError: if the model has no classes.
    """
    logits = self.forward(batch)[0] if self.has_head else None
    if logits is None:
      raise ValueError(
        "this model has no classes but compares images with texts: use "
        "similarity(batch, texts)."
        if self.has_two_towers
        else "this model has no classes: use features(batch), or fine-tune it."
      )
    return logits

  def features(self, batch: Batch) -> Float[np.ndarray, "b d"]:
    """Features of prepared images: the head's input, or the embedding."""
    return self.forward(batch)[1]

  def text_features(self, texts: Sequence[str]) -> Float[np.ndarray, "t d"]:
    """The embeddings of texts, of length 1.

    Raises:
      ValueError: if the model does not read texts.
    """
    ids = self.tokenizer(texts)
    return np.asarray(self._apply_to_texts(self._on_device, ids))

  def similarity(
    self, batch: Batch, texts: Sequence[str]
  ) -> Float[np.ndarray, "b t"]:
    """The logits of prepared images and texts, as training compares them."""
    return self.compare(self.features(batch), self.text_features(texts))

  def compare(
    self,
    features: Float[np.ndarray, "b d"],
    text_features: Float[np.ndarray, "t d"],
  ) -> Float[np.ndarray, "b t"]:
    """`similarity` of the results of `features` and `text_features`."""
    t, b = (np.asarray(self.params.get(k, 0), np.float32) for k in "tb")
    return np.exp(t) * (features @ text_features.T) + b

  def probabilities(
    self, logits: Float[np.ndarray, "b n"]
  ) -> Float[np.ndarray, "b n"]:
    """Softmax of logits; their sigmoid if the training loss has one.

    Raises:
      ValueError: if the model predicts numbers.
    """
    if self.is_regression:
      raise ValueError("this model predicts numbers, and no probabilities.")
    if self.metadata["loss"].startswith(("sigmoid", "siglip")):
      return scipy.special.expit(logits)
    return scipy.special.softmax(logits, axis=-1)

  @functools.cached_property
  def _on_device(self):
    return jax.device_put(self.variables)

  @functools.cached_property
  def _apply(self):
    """Compiled: (variables, images) -> (logits or None, features)."""

    @jax.jit
    def apply(variables, image):
      if self.has_two_towers:
        embedding, _, _ = self.model.apply(variables, image, None)
        return None, embedding.astype(jnp.float32)
      logits, out = self.model.apply(variables, image)
      if not self.has_head:
        return None, out["pre_logits"].astype(jnp.float32)
      return jax.tree.map(
        lambda x: x.astype(jnp.float32), (logits, out["pre_logits"])
      )

    return apply

  @functools.cached_property
  def _apply_to_texts(self):
    @jax.jit
    def apply(variables, text):
      _, embedding, _ = self.model.apply(variables, None, text)
      return embedding.astype(jnp.float32)

    return apply


def _pixels(image: Any) -> np.ndarray:
  """Pixels of an array or of a PIL image, which may need a conversion."""
  mode = getattr(image, "mode", None)
  if mode is not None:
    from PIL import ImageOps  # installed, since the image is Pillow's

    image = ImageOps.exif_transpose(image)
  if mode == "1":
    image = image.convert("L")
  elif mode in ("P", "PA", "LA"):
    image = image.convert("RGBA")
  elif mode in ("CMYK", "YCbCr", "LAB", "HSV"):
    image = image.convert("RGB")
  return np.asarray(image)


def _by(shape: tuple[int, ...]) -> str:
  return "x".join(map(str, shape))


def load(
  path: str | os.PathLike,
  *,
  step: int | str = "latest",
  ema: bool = False,
  pretrained_dir: str | None = None,
  allow_module: str | None = None,
) -> Trained:
  """Loads a run folder, an `.npz` with its `.json` beside it, or a name.

    run = vitjax.load("runs/quickstart")
    run.classify("seven.png")

  Args:
    path: path of the run folder or of the exported file; a repository of the
      Hugging Face hub, "hf:OWNER/REPO" or "hf:OWNER/REPO@REVISION"; or a
      published name, see `vitjax.weights.zoo`. Published files are downloaded
      the first time.
    step: checkpoint of a run folder: a number, "latest" or "best".
    ema: load the averaged parameters of a run folder instead of the last ones.
    pretrained_dir: folder, URL or gs://bucket/folder with the files of
      published names; None for where they are published.
    allow_module: dotted path of a model of your own. A folder or a file may
      name it; without this, any module that is not vitjax's is refused,
      because importing a module runs its code.

  Raises:
    FileNotFoundError: if there is no such run, file or name.
    DownloadError: if a published file cannot be downloaded; says which file to
      put where.
    ValueError: if the file does not say which model it is for, does not fit
      it, or is damaged.
    CheckpointError: if that step is absent or damaged.
  """
  name = os.fspath(path)
  place = _place(name)
  if place.is_dir():
    metadata, params = read_run(place, step=step, ema=ema)
    flat = trees.flatten(params)
    model = description.create_model(metadata, flat, place, allow_module)
    fitting.check_values(flat, repr(name))
  elif ema or step != "latest":
    option = "ema=True" if ema else f"step={step!r}"
    raise ValueError(
      f"{name} is not a run folder, and {option} is for run folders."
    )
  elif place.is_file():
    metadata, model, params = _load_file(place, allow_module)
  else:
    metadata, model, params = _load_published(name, pretrained_dir)
  names = metadata.get("class_names")
  return Trained(
    model=model,
    params=params,
    image_size=tuple(metadata["image_size"]),
    channels=metadata["channels"],
    preprocess=metadata["preprocess"],
    class_names=names and tuple(names),
    metadata=metadata,
    source=metadata.get("origin", name),
  )


def describe(
  path: str | os.PathLike, *, pretrained_dir: str | None = None
) -> dict[str, Any]:
  """The metadata of what `load` loads, without its weights; see there."""
  name = os.fspath(path)
  place = _place(name)
  if place.is_dir():
    return _metadata_of_run(place)
  if place.is_file():
    return _checked(description.read_metadata(place), place)
  return _describe_published(name, pretrained_dir)[1]


def _place(name: str) -> Any:
  """The path that `name` is, if it is one."""
  is_url = name.startswith(("https://", "http://"))  # of a published file
  return pathlib.Path(name) if is_url else places.of(name)


def read_run(
  folder: pathlib.Path, *, step: int | str = "latest", ema: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
  """The metadata and the weights in a run folder; see `load` for Args.

  Nothing that the folder names is imported.
  """
  metadata = _metadata_of_run(folder)
  directory = folder / "checkpoints"
  step, params, info = checkpointer.load_params(
    directory, step=step, item="ema_params" if ema else "params"
  )
  identity.check_run(folder, step, info)
  items = step_files.read_record(directory, step)["items"]
  if not ema and "statistics" in items:
    _, statistics, _ = checkpointer.load_params(
      directory, step=step, item="statistics"
    )
    params = batch_norm.join({"params": params, **statistics})
  return _located(metadata, folder) | {"step": step, "ema": ema}, params


def _metadata_of_run(folder: pathlib.Path) -> dict[str, Any]:
  file = folder / files.MODEL
  if not file.exists():
    raise FileNotFoundError(f"{folder} is not a run folder: {file} is missing.")
  metadata = description.parse(file)
  if missing := [key for key in _NEEDED if key not in metadata]:
    raise ValueError(f"{file} does not say {', '.join(missing)}.")
  return metadata


def _checked(metadata: dict[str, Any], path: pathlib.Path) -> dict[str, Any]:
  """The metadata of an exported file, which say all that is needed."""
  if missing := [key for key in _NEEDED if key not in metadata]:
    raise ValueError(
      f"{path} has no {path.with_suffix('.json').name} beside it that says "
      f"{', '.join(missing)}. If it is a published file, give its name (see "
      "vitjax.weights.zoo) and its folder as pretrained_dir; else use "
      "vitjax.models.create(...) and vitjax.weights.load(...)."
    )
  return metadata


def _load_file(path: pathlib.Path, allow_module: str | None):
  """(metadata, model, parameters) of an exported file."""
  flat, metadata = loading.read(path)
  metadata = _checked(metadata, path)
  model = description.create_model(metadata, flat, path, allow_module)
  params = fitting.fit(
    flat,
    model,
    source=repr(path.name),
    metadata=metadata,
    channels=metadata["channels"],
    resize_posemb=False,
  )
  return _located(metadata, path.parent), model, params


def _describe_published(
  name: str, pretrained_dir: str | None
) -> tuple[str, dict[str, Any]]:
  """(resolved name, metadata) of published weights."""
  try:
    name = published.resolve(name, pretrained_dir)
    return name, published.describe(name, pretrained_dir)
  except KeyError as e:
    raise FileNotFoundError(
      f"{name!r} is not a run folder, a file or the name of published weights: "
      f"{e.args[0]}"
    ) from None


def _load_published(name: str, pretrained_dir: str | None):
  """(metadata, model, parameters) of published weights."""
  name, _ = _describe_published(name, pretrained_dir)  # before a large download
  flat, about = loading.read(published.find(name, pretrained_dir))
  metadata = published.describe(name, pretrained_dir, flat)
  model = description.create_model(metadata, flat, pathlib.Path(name))
  params = fitting.fit(
    flat,
    model,
    source=repr(name),
    metadata=about,
    image_size=metadata["image_size"],
    channels=metadata["channels"],
  )
  return metadata, model, params


def _located(metadata: dict, folder: pathlib.Path) -> dict:
  """`metadata` with the path of the vocabulary that lies in `folder`."""
  if "tokenizer" not in metadata:
    return metadata
  facts = metadata["tokenizer"]
  vocab = os.fspath(places.local(folder / facts["vocab"]))
  return {**metadata, "tokenizer": {**facts, "vocab": vocab}}
