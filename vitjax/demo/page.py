"""The page of `vitjax.demo`: its answers and its layout.

Gradio lays it out and serves it. An upload is decoded only after its size in
bytes and in pixels has been checked, and is removed when the server ends.
"""

import collections
import contextlib
import dataclasses
import os
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np

from vitjax.config import extras
from vitjax.data.limits import Limits
from vitjax.data.pp import builder
from vitjax.demo import uploads
from vitjax.plots import attention_maps, pixels
from vitjax.predict import prediction
from vitjax.trained import Trained

_WIDTH = 320  # least width of a picture in pixels
_EXAMPLE_TEXTS = "a photo of a cat\na photo of a dog"
# Text of the page for models without and with texts.
_RESULTS = ("the most probable classes", "which of the texts fit it")
_CSS = """
.gradio-container { max-width: 70rem !important; margin: 0 auto !important; }
.gradio-container, .gradio-container main { width: 100%; min-width: 0; }
footer { display: none !important; }
"""


@dataclasses.dataclass(frozen=True)
class Answer:
  """Answer of the model to an image.

  Attributes:
    scores: class or text -> its probability, for all of them.
    image: the image after preprocessing, uint8 (h, w, 3).
    attention: the image under its attention rollout, or None.
    note: why there is no rollout; empty if there is one.
  """

  scores: dict[str, float]
  image: np.ndarray
  attention: np.ndarray | None
  note: str


class Model:
  """A model that answers about one upload at a time."""

  def __init__(self, trained: Trained, *, limits: Limits):
    """Makes a model that refuses uploads above the limits.

    Args:
      trained: from `vitjax.load`.
      limits: largest files and images.

    Raises:
      ValueError: if the model compares images with texts and its vocabulary
        is not known, if it takes images that a browser cannot show, if it
        predicts numbers, or if it has no classes.
    """
    if trained.is_regression:
      raise ValueError(
        "the demo shows probabilities, and this model predicts numbers: use "
        "python -m vitjax.predict."
      )
    if not (trained.has_head or trained.has_two_towers):
      raise ValueError(
        "the demo shows probabilities, and this model has no classes: "
        "fine-tune it first, or save features by python -m vitjax.predict "
        "--features=out.npz."
      )
    self.trained = trained
    self.limits = limits
    self.takes_texts = trained.has_two_towers
    if trained.channels > 4:
      raise ValueError(
        f"the model takes images of {trained.channels} channels, which a "
        "browser cannot show. Use python -m vitjax.predict."
      )
    if self.takes_texts:
      trained.tokenizer  # noqa: B018, raises
    self._maps = attention_maps.maps_fn(trained.model)
    self._names = trained.labels and unique(trained.labels)
    spec = builder.for_images(trained.preprocess)
    statistics = builder.build(spec).pixel_statistics.get("image", {})
    self._mean = np.array(statistics.get("mean", 0), np.float32)
    self._std = np.array(statistics.get("std", 1), np.float32)

  def warm_up(self) -> None:
    """Compiles, so that the first visitor does not wait."""
    shape = (1, *self.trained.image_size, self.trained.channels)
    self.trained.features(np.zeros(shape, np.float32))
    self._look(np.zeros(shape, np.float32))

  def answer(self, file: str | os.PathLike, texts: str = "") -> Answer:
    """Answers about an image file.

    Args:
      file: path of the upload.
      texts: one per line, for a model that compares images with texts.

    Raises:
      ValueError: if the file is refused, or there is no text; one line.
    """
    with open(file, "rb") as stream:  # one byte more tells that it is too large
      data = stream.read(self.limits.max_bytes + 1)
    self.limits.check(data)
    try:
      prepared = self.trained.prepare(data)
    except ValueError as e:
      raise ValueError(f"the image cannot be read: {e}") from e
    names, text_features = self._names, None
    if self.takes_texts:
      names = list(
        dict.fromkeys(filter(None, map(str.strip, texts.split("\n"))))
      )
      if not names:
        raise ValueError("type at least one text, one per line.")
      text_features = self.trained.text_features(names)
    (found,) = prediction.of_images(
      self.trained, [prepared], size=1, text_features=text_features
    )
    scores = found.probabilities
    assert scores is not None  # it predicts no numbers
    names = names or list(map(str, range(len(scores))))
    image = np.rint(prepared * self._std + self._mean).clip(0, 255)
    image = image.astype(np.uint8)
    heat, note = self._look(prepared[None])
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
  """Names of classes; those that several classes share get their id."""
  count = collections.Counter(names)
  return [n if count[n] == 1 else f"{n} ({i})" for i, n in enumerate(names)]


@contextlib.contextmanager
def serve(
  model: Model, title: str, *, host: str, port: int | None, top: int = 5
) -> Generator[str]:
  """Serves the page until the context ends; yields its address.

  Args:
    model: gives the answers.
    title: title of the page.
    host: address to listen on.
    port: port to listen on; None for the first free one from 7860.
    top: number of classes to show.

  Raises:
    OSError: if the port is taken.
  """
  local = "localhost,127.0.0.1"
  for name in ("no_proxy", "NO_PROXY"):  # gradio asks whether it is up
    os.environ[name] = ",".join(filter(None, (os.environ.get(name), local)))
  os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
  with uploads.folder() as folder:
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
      max_file_size=model.limits.max_bytes,
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

  def update(value):
    return gradio.update(value=value, visible=value is not None)

  def show(file, texts=""):
    answer, note = None, ""
    try:
      answer = model.answer(file, texts) if file else None
    except ValueError as e:
      note = f"Not shown: {e}"
    if answer is None:
      shown = (None, None, None)
    else:
      shown = (answer.scores, answer.image, answer.attention)
      note = answer.note and f"No attention map: {answer.note}"
    return tuple(map(update, (*shown, _plain(note) or None)))

  with gradio.Blocks(
    title=title, analytics_enabled=False, delete_cache=(600, 600)
  ) as page:
    gradio.Markdown(f"# {_plain(title)}")
    gradio.Markdown(
      f"Give an image to see {_RESULTS[model.takes_texts]}, and which parts "
      "the model attends to."
    )
    with gradio.Row():
      with gradio.Column():
        file = gradio.File(
          label=(
            f"Image, at most {model.limits.max_bytes / 1e6:g} MB and "
            f"{model.limits.max_pixels / 1e6:g} million pixels"
          ),
          file_types=["image"],
          type="filepath",
          height=160,
        )
        inputs, triggers = [file], []
        if model.takes_texts:
          texts = gradio.Textbox(
            _EXAMPLE_TEXTS, lines=4, label="Texts, one per line"
          )
          inputs.append(texts)
          button = gradio.Button("Compare", variant="primary")
          triggers = [button.click, texts.submit]
        message = gradio.Markdown(visible=False)
        label = "Texts" if model.takes_texts else "Classes"
        # Results have no place before there are any.
        scores = gradio.Label(num_top_classes=top, label=label, visible=False)
      with gradio.Column():
        image, heat = (
          gradio.Image(
            label=label,
            interactive=False,
            format="png",
            height=340,
            buttons=["download", "fullscreen"],  # no button that shares
            visible=False,
          )
          for label in ("What the model gets", "Attention rollout")
        )
    outputs = [scores, image, heat, message]
    file.change(show, inputs, outputs, api_name=False)
    if triggers:
      gradio.on(triggers, show, inputs, outputs, api_name=False)
  return page


def _plain(text: str) -> str:
  """Text that Markdown shows unchanged."""
  return "".join(c if c.isalnum() or c == " " else f"&#{ord(c)};" for c in text)
