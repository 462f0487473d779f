"""Limits of images that strangers send, checked before they are decoded."""

import dataclasses
import io
import threading
import warnings

import PIL.Image

# What browsers show and cameras write.
KINDS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
# `catch_warnings` is not for several threads at once.
_LOCK = threading.Lock()


class TooLargeError(ValueError):
  """The image exceeds a limit."""


@dataclasses.dataclass(frozen=True)
class Limits:
  """Largest images that are decoded.

  Attributes:
    max_bytes: largest size of the file.
    max_pixels: largest number of pixels of the image.
    kinds: formats that are read, in Pillow's names.
  """

  max_bytes: int
  max_pixels: int
  kinds: tuple[str, ...] = KINDS

  def check(self, data: bytes) -> None:
    """Checks the size and the header of a file; decodes nothing.

    Raises:
      TooLargeError: if it is too large.
      ValueError: if it is no image; one line, for strangers.
    """
    self.check_bytes(len(data))
    try:
      with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about Pillow's own, larger limit
        with PIL.Image.open(io.BytesIO(data), formats=self.kinds) as image:
          width, height = image.size
    except PIL.Image.DecompressionBombError:
      width, height = self.max_pixels + 1, 1
    except Exception as e:  # Pillow raises errors of all kinds
      raise ValueError(
        f"this is not an image that can be read ({', '.join(self.kinds)})."
      ) from e
    if width * height > self.max_pixels:
      raise TooLargeError(
        f"the image has more than {self.max_pixels / 1e6:g} million pixels."
      )

  def check_bytes(self, size: int) -> None:
    """Raises a TooLargeError for a file of more bytes than are allowed."""
    if size > self.max_bytes:
      raise TooLargeError(
        f"the file is larger than {self.max_bytes / 1e6:g} MB."
      )
