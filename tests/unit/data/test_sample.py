"""The sample folder of images."""

import cv2
import numpy as np
import pytest
from sklearn import datasets

from vitjax.data import sample


def test_folders_are_the_digits(tmp_path):
  folder = tmp_path / "images"
  assert sample.write_digits(folder) == 1797
  digits = datasets.load_digits()
  for i in (0, 1, 42, 1796):
    split = "val" if i % 5 == 0 else "train"
    file = folder / split / str(digits.target[i]) / f"{i:04d}.png"
    pixels = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    assert pixels.shape == (32, 32)
    np.testing.assert_array_equal(pixels[::4, ::4] // 15, digits.images[i])
  assert len([*folder.glob("val/*/*.png")]) == 360


def test_files_that_are_there_are_left_alone(tmp_path):
  (tmp_path / "mine.jpg").touch()
  with pytest.raises(ValueError, match="is not empty"):
    sample.write_digits(tmp_path)
  assert [x.name for x in tmp_path.iterdir()] == ["mine.jpg"]
