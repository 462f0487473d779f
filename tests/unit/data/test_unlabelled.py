"""Images without labels."""

import numpy as np
import pytest
from PIL import Image

from vitjax.data import pipeline, sources
from vitjax.data.pp import builder
from vitjax.data.sources.source import DatasetNotPreparedError


def write(file, value):
  file.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.full((6, 5, 3), value, np.uint8)).save(file)


def test_all_images_below_a_folder_without_labels(tmp_path):
  for i, name in enumerate(("b.png", "a/1.png", "a/deep/2.png")):
    write(tmp_path / name, i)
  (tmp_path / "notes.txt").write_text("")
  source = sources.open_source(f"images:{tmp_path}", "train")
  assert source.num_examples == 3
  assert source.num_classes is source.labels is None
  assert source.describe(0).endswith("a/1.png")
  spec = pipeline.example_spec(source, builder.build("decode|resize(4)"), 2)
  assert {name: x.shape for name, x in spec.items() if name == "image"} == {
    "image": (2, 4, 4, 3)
  }
  assert "label" not in spec
  before = source.fingerprint
  write(tmp_path / "c.png", 3)
  again = sources.open_source(f"images:{tmp_path}", "train")
  assert again.fingerprint != before


def test_what_is_wrong_with_the_folder_is_said(tmp_path):
  with pytest.raises(DatasetNotPreparedError, match="does not exist"):
    sources.open_source(f"images:{tmp_path}/none", "train")
  with pytest.raises(ValueError, match="No images below"):
    sources.open_source(f"images:{tmp_path}", "train")
  write(tmp_path / "a.png", 0)
  with pytest.raises(ValueError, match="no split 'val'"):
    sources.open_source(f"images:{tmp_path}", "val")
