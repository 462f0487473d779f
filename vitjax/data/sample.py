"""A small folder of images to try the commands on, without a network."""

import os
import pathlib
from typing import Any

import cv2
import numpy as np


def write_digits(folder: str | os.PathLike) -> int:
  """Writes scikit-learn's 1,797 handwritten digits as class folders of PNGs.

  Every fifth image goes to `val`, the others to `train`. The images are
  enlarged from 8 to 32 pixels.

  Args:
    folder: a folder that does not exist yet, or is empty.

  Returns:
    the number of images.

  Raises:
    ValueError: if the folder has files.
  """
  from sklearn import datasets

  folder = pathlib.Path(folder)
  if folder.exists() and any(folder.iterdir()):
    raise ValueError(
      f"{folder} is not empty. Give a folder that does not exist yet."
    )
  digits: Any = datasets.load_digits()
  for i, (image, label) in enumerate(zip(digits.images, digits.target)):
    split = "train" if i % 5 else "val"
    (folder / split / str(label)).mkdir(parents=True, exist_ok=True)
    pixels = np.kron(image * 15, np.ones((4, 4))).astype(np.uint8)
    cv2.imwrite(os.fspath(folder / split / str(label) / f"{i:04d}.png"), pixels)
  return len(digits.images)
