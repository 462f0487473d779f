"""Images as arrays, PNG files and data URIs."""

import base64

import cv2
import numpy as np

from vitjax.plots.figures import colors_of


def overlay(
  image: np.ndarray, heat: np.ndarray, least: int = 160
) -> np.ndarray:
  """A grey image under a coloured map.

  Args:
    image: uint8 (h, w, c); see `rgb`.
    heat: (grid_h, grid_w) in any range; the largest value is the brightest.
    least: see `rgb`.

  Returns:
    uint8 (h, w, 3).
  """
  image = rgb(image, least)
  h, w, _ = image.shape
  heat = cv2.resize(
    np.asarray(heat, np.float32), (w, h), interpolation=cv2.INTER_LINEAR
  )
  low, high = heat.min(), heat.max()
  heat = (heat - low) / (high - low if high > low else 1)
  colors = colors_of(heat) * 255
  grey = image.mean(axis=-1, keepdims=True)
  return np.rint(0.45 * grey + 0.55 * colors).astype(np.uint8)


def rgb(image: np.ndarray, least: int = 160) -> np.ndarray:
  """A uint8 image with three channels and at least `least` columns.

  Of other channels it shows the first three, or of two the first as grey.
  """
  image = image[..., : 3 if image.shape[2] > 2 else 1]
  image = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
  times = -(-least // image.shape[1])
  return image.repeat(times, axis=0).repeat(times, axis=1)


def png(image: np.ndarray) -> bytes:
  """The PNG file of a uint8 image, (h, w, 3)."""
  _, data = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))
  return data.tobytes()


def data_uri(png: bytes) -> str:
  """A data URI of a PNG file."""
  return f"data:image/png;base64,{base64.b64encode(png).decode()}"
