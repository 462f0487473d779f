"""The page of `vitjax.demo`: what it answers, and how it is laid out.

Gradio lays it out and serves it. An upload is read only after its size in
bytes and in pixels has been looked at, and nothing of it stays on the disk
when the server ends.
"""

import collections
import contextlib
import dataclasses
import io
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from vitjax.config import extras
from vitjax.data.pp import builder
from vitjax.plots import attention_maps
from vitjax.trained import Trained

with extras.needed("demo", "demos"):
  import PIL.Image

_KINDS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
_WIDTH = 320  # pixels of a picture, at least
_EXAMPLE_TEXTS = "a photo of a cat\na photo of a dog"
_CSS = """
.gradio-container { max-width: 70rem !important; margin: 0 auto !important; }
footer { display: none !important; }
"""


@dataclasses.dataclass(frozen=True)
class Answer:
  """What the model says about an image.

  Attributes:
    scores: name of a class, or text -> probability, all of them.
    image: what the model was given, uint8 (h, w, 3).
    attention: the same with the rollout over it, or None.
    note: why there is no rollout; empty if there is one.
  """

  scores: dict[str, float]
  image: np.ndarray
  attention: np.ndarray | None
  note: str


class Model:
  """A model that answers about one upload at a time."""

  def __init__(self, trained: Trained, *, max_bytes: int, max_pixels: int):
    """Takes what was trained, and the limits of an upload.

    Args:
      trained: from `vitjax.load`.
      max_bytes: of the file.
      max_pixels: of the image, once it is decoded.

    Raises:
      ValueError: if the model compares images with texts and its vocabulary
        is not known.
    """
    self.trained = trained
    self.max_bytes = max_bytes
    self.max_pixels = max_pixels
    self.takes_texts = trained.has_two_towers
    if self.takes_texts:
      trained.tokenizer  # noqa: B018, raises
    self._maps = attention_maps.maps_fn(trained.model)
    self._names = trained.labels and unique(trained.labels)
    spec = builder.for_images(trained.preprocess)
    statistics = builder.build(spec).pixel_statistics.get("image", {})
    self._mean = np.array(statistics.get("mean", 0), np.float32)
    self._std = np.array(statistics.get("std", 1), np.float32)

  def warm_up(self) -> None:
    """Compiles, so that the first visitor need not wait."""
    shape = (1, *self.trained.image_size, self.trained.channels)
    self.trained.features(np.zeros(shape, np.float32))
    self._look(np.zeros(shape, np.float32))

  def check(self, data: bytes) -> None:
    """Looks at the header of an upload.

    Raises:
      ValueError: if it is too large or no image; in one line, for visitors.
    """
    if len(data) > self.max_bytes:
      raise ValueError(
        f"the file has {len(data) / 1e6:.1f} MB, and at most "
        f"{self.max_bytes / 1e6:g} MB are read."
      )
    try:
      with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow's own, larger limit
        with PIL.Image.open(io.BytesIO(data), formats=_KINDS) as image:
          width, height = image.size
    except PIL.Image.DecompressionBombError:
      width, height = self.max_pixels + 1, 1
    except Exception as e:  # Pillow lets errors of all kinds out
      raise ValueError(
        f"this is not an image that can be read ({', '.join(_KINDS)})."
      ) from e
    if width * height > self.max_pixels:
      raise ValueError(
        f"the image has more than {self.max_pixels / 1e6:g} million pixels."
      )

  def answer(self, file: str | os.PathLike, texts: str = "") -> Answer:
    """Answers about an image file.

    Args:
      file: path of the upload.
      texts: one in a line, for a model that compares images with texts.

    Raises:
      ValueError: if the file is not read, or there is no text; in one line.
    """
    with open(file, "rb") as stream:  # no more than tells that it is too much
      data = stream.read(self.max_bytes + 1)
    self.check(data)
    try:
      pixels = self.trained.prepare(data)
    except ValueError as e:
      raise ValueError(f"the image cannot be read: {e}") from e
    batch = pixels[None]
    if self.takes_texts:
      names = list(
        dict.fromkeys(filter(None, map(str.strip, texts.split("\n"))))
      )
      if not names:
        raise ValueError("type at least one text, each in a line of its own.")
      logits = self.trained.similarity(batch, names)
    else:
      logits = self.trained.predict(batch)
      names = self._names or list(map(str, range(logits.shape[1])))
    scores = self.trained.probabilities(logits)[0]
    image = np.rint(pixels * self._std + self._mean).clip(0, 255)
    image = image.astype(np.uint8)
    heat, note = self._look(batch)
    return Answer(
      scores=dict(zip(names, map(float, scores))),
      image=pixels.rgb(image, _WIDTH),
      attention=None if heat is None else pixels.overlay(image, heat, _WIDTH),
      note=note,
    )

  def _look(self, batch: np.ndarray) -> tuple[np.ndarray | None, str]:
    try:
      _, rollout = self._maps(self.trained.params, batch)
    except ValueError as e:
      return None, str(e)
    if rollout is None:
      return None, "differential attention has no rollout."
    return np.asarray(rollout[0]), ""


def unique(names: Sequence[str]) -> list[str]:
  """Names of classes, with the id behind those that several classes have."""
  count = collections.Counter(names)
  return [n if count[n] == 1 else f"{n} ({i})" for i, n in enumerate(names)]


@contextlib.contextmanager
def serve(
  model: Model, title: str, *, host: str, port: int | None, top: int = 5
) -> Iterator[str]:
  """Serves the page until the context ends; yields its address.

  Args:
    model: answers.
    title: of the page.
    host: address to listen at.
    port: likewise; None for the first free one from 7860.
    top: how many classes to show.

  Raises:
    OSError: if the port is taken.
  """
  local = "localhost,127.0.0.1"
  for name in ("no_proxy", "NO_PROXY"):  # gradio asks itself whether it is up
    os.environ[name] = ",".join(filter(None, (os.environ.get(name), local)))
  os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
  with tempfile.TemporaryDirectory(prefix="vitjax_demo_") as folder:
    os.environ["GRADIO_TEMP_DIR"] = folder
    with extras.needed("demo", "demos"):
      import gradio

    page = build(gradio, model, title, top)
    fonts = ["system-ui", "sans-serif"]
    _, address, _ = page.launch(
      server_name=host,
      server_port=port,
      share=False,
      inbrowser=False,
      prevent_thread_lock=True,
      quiet=True,
      ssr_mode=False,
      max_file_size=model.max_bytes,
      theme=gradio.themes.Default(font=fonts, font_mono=["monospace"]),
      css=_CSS,
      footer_links=[],
    )
    try:
      yield address
    finally:
      page.close(verbose=False)


def build(gradio: Any, model: Model, title: str, top: int) -> Any:
  """The page as Gradio's blocks."""

  def say(text):
    return gradio.update(value=_plain(text), visible=bool(text))

  def show(file, texts=""):
    if not file:
      return {}, None, None, say("")
    try:
      answer = model.answer(file, texts)
    except ValueError as e:
      return {}, None, None, say(f"Not shown: {e}")
    note = answer.note and f"No attention map: {answer.note}"
    return answer.scores, answer.image, answer.attention, say(note)

  with gradio.Blocks(
    title=title, analytics_enabled=False, delete_cache=(600, 600)
  ) as page:
    gradio.Markdown(f"# {_plain(title)}")
    with gradio.Row():
      with gradio.Column():
        file = gradio.File(
          label=(
            f"Image, at most {model.max_bytes / 1e6:g} MB and "
            f"{model.max_pixels / 1e6:g} million pixels"
          ),
          file_types=["image"],
          type="filepath",
          height=160,
        )
        inputs = [file]
        if model.takes_texts:
          texts = gradio.Textbox(
            _EXAMPLE_TEXTS, lines=4, label="Texts, one in a line"
          )
          inputs.append(texts)
          button = gradio.Button("Compare", variant="primary")
        message = gradio.Markdown(visible=False)
        label = "Texts" if model.takes_texts else "Classes"
        scores = gradio.Label(num_top_classes=top, label=label)
      with gradio.Column():
        image, heat = (
          gradio.Image(
            label=label,
            interactive=False,
            format="png",
            height=340,
            buttons=["download", "fullscreen"],  # none that shares elsewhere
          )
          for label in ("What the model gets", "Attention rollout")
        )
    outputs = [scores, image, heat, message]
    file.change(show, inputs, outputs, api_name=False)
    if model.takes_texts:
      gradio.on(
        [button.click, texts.submit], show, inputs, outputs, api_name=False
      )
  return page


def _plain(text: str) -> str:
  """Text that Markdown shows as it is."""
  return "".join(c if c.isalnum() or c == " " else f"&#{ord(c)};" for c in text)
