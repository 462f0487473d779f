"""A model that answers about images which clients send."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vitjax.data.limits import Limits
from vitjax.predict import prediction
from vitjax.predict.prediction import Prediction
from vitjax.trained import Trained


class Model:
  """Prepares one image at a time, and answers about batches."""

  def __init__(
    self,
    trained: Trained,
    *,
    limits: Limits,
    texts: Sequence[str] = (),
    resize: bool = False,
  ):
    """Makes a model that refuses images above the limits.

    Args:
      trained: from `vitjax.load`.
      limits: largest files and images.
      texts: captions to choose from, for a model that reads texts.
      resize: see `Trained.prepare`.

    Raises:
      ValueError: if the model has neither classes nor captions, cannot read
        captions, or takes images that the server does not read.
    """
    prediction.check_texts(trained, texts)
    if trained.has_two_towers and not texts:
      raise ValueError(
        "this model has no classes: give captions to choose from, "
        '--texts="a cat,a dog".'
      )
    if not (trained.has_two_towers or trained.has_head):
      raise ValueError(
        "this model has no classes. Save its features with vitjax predict "
        "--features=out.npz."
      )
    if trained.channels > 4:
      raise ValueError(
        f"the model takes images of {trained.channels} channels, and the "
        "server reads files with 4 at most. Use vitjax predict."
      )
    self.limits = limits
    self._trained = trained
    self._resize = resize
    self._names = prediction.names_of(trained, texts)
    self._text_features = trained.text_features(texts) if texts else None

  def prepare(self, data: bytes) -> np.ndarray:
    """Prepares an image file.

    Raises:
      TooLargeError: if it exceeds a limit.
      ValueError: if it cannot be read; in one line.
    """
    self.limits.check(data)
    return self._trained.prepare(data, resize=self._resize)

  def predict(
    self, images: Sequence[np.ndarray], size: int
  ) -> list[Prediction]:
    """Predictions for prepared images, by the program for `size` images."""
    return prediction.of_images(
      self._trained, images, size=size, text_features=self._text_features
    )

  def compile(self, size: int) -> None:
    """Compiles the program for `size` images."""
    shape = (*self._trained.image_size, self._trained.channels)
    self.predict([np.zeros(shape, np.float32)], size)

  def describe(self, found: Prediction, top: int) -> dict[str, Any]:
    """The answer to a client; the same as that of `vitjax predict --json`."""
    return prediction.to_json(found, self._names, top)
