"""Folds of cross-validation."""

import posixpath

import pytest

from vitjax.data import sources

SIZES = {"a": 23, "b": 10, "c": 3, "d": 2}
FOLDS = [f":fold={i}/5" for i in range(1, 6)]


def write(root, files):
  for file in files:
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_bytes(b"")


@pytest.fixture
def root(tmp_path):
  sizes = SIZES.items()
  write(tmp_path, [f"{x}/{i}.png" for x, size in sizes for i in range(size)])
  return tmp_path


def split_of(data, split):
  source = sources.open_source(data, split)
  paths = [source.describe(i) for i in range(source.num_examples)]
  assert len({*paths}) == len(paths)
  return {posixpath.normpath(path) for path in paths}


def count(paths, name):
  return sum(f"/{name}/" in path for path in paths)


def test_folds_are_disjoint_complete_and_stratified(root):
  whole = split_of(f"folder:{root}", "train+val")
  vals = []
  for fold in FOLDS:
    train, val = (split_of(f"folder:{root}{fold}", x) for x in ("train", "val"))
    assert not train & val and train | val == whole
    classes = sources.open_source(f"folder:{root}{fold}", "train").class_names
    assert classes == tuple(SIZES)  # each has images to train on
    vals.append(val)
  assert len(whole) == sum(map(len, vals)) == len(set().union(*vals))
  sizes = {x: sorted(count(val, x) for val in vals) for x in SIZES}
  assert sizes == {
    "a": [4, 4, 5, 5, 5],
    "b": [2, 2, 2, 2, 2],
    "c": [0, 0, 1, 1, 1],
    "d": [0, 0, 0, 1, 1],
  }


def test_folds_of_many_small_classes_are_alike(tmp_path):
  write(tmp_path, [f"{i // 2}/{i % 2}.png" for i in range(200)])
  sizes = [len(split_of(f"folder:{tmp_path}{fold}", "val")) for fold in FOLDS]
  assert sum(sizes) == 200 and 25 < min(sizes) and max(sizes) < 55, sizes


def test_a_table_has_the_folds_of_its_folder(root):
  whole = split_of(f"folder:{root}", "train+val")
  names = [
    path.removeprefix(f"{root}/") for path in sorted(whole, reverse=True)
  ]
  rows = "\n".join(f"./{name},{name[0]}" for name in names)
  (root / "labels.csv").write_text(f"file,label\n{rows}\n")
  for fold in FOLDS:
    want = split_of(f"folder:{root}{fold}", "val")
    assert split_of(f"labels:{root}/labels.csv{fold}", "val") == want
    # A path alone is a folder or a table, also with a fold.
    assert split_of(f"{root}/labels.csv{fold}", "val") == want
    assert split_of(f"{root}{fold}", "val") == want


def test_other_classes_move_nothing_and_images_few(root):
  data = f"folder:{root}{FOLDS[1]}"
  before = split_of(data, "val")
  write(root, [f"e/{i}.png" for i in range(9)])
  assert {x for x in split_of(data, "val") if "/e/" not in x} == before
  write(root, ["a/x.png"])
  assert len(before - split_of(data, "val")) <= 2


def test_train_and_val_are_split_anew_and_test_is_not(tmp_path, caplog):
  splits = {"train": 6, "val": 4, "test": 5}
  write(
    tmp_path,
    [f"{x}/cat/{x}{i}.png" for x, size in splits.items() for i in range(size)],
  )
  write(tmp_path, ["train/rare/1.png"])
  data = f"folder:{tmp_path}"
  whole = split_of(data, "train+val")
  vals = [split_of(f"{data}{fold}", "val") for fold in FOLDS]
  assert [len(val) for val in vals] == [2] * 5
  rare = {f"{tmp_path}/train/rare/1.png"}
  assert set().union(*vals) == whole - rare
  assert split_of(f"{data}{FOLDS[0]}", "test") == split_of(data, "test")
  assert rare < split_of(f"{data}{FOLDS[0]}", "train")
  assert "with a single image, which is in train and never in val: 'rare'." in (
    caplog.text
  )


def test_a_run_cannot_resume_on_another_fold(root):
  found = {
    sources.open_source(f"folder:{root}{fold}", "train").fingerprint
    for fold in FOLDS
  }
  assert len(found) == 5


@pytest.mark.parametrize(
  ("data", "message"),
  [
    (
      "folder:{}:fold=0/5",
      "fold=0/5 is no fold. Write fold=I/K, with I from 1",
    ),
    ("folder:{}:fold=6/5", "fold=6/5 is no fold"),
    ("folder:{}:fold=1/1", "fold=1/1 is no fold"),
    ("{}:fold=2", "fold=2 is no fold"),
    ("digits:fold=1/5", "only folder:, labels:, wds: and parquet: have f"),
    (
      "captions:{}/c.csv:fold=1/5",
      "only folder:, labels:, wds: and parquet: have f",
    ),
  ],
)
def test_refusals(root, data, message):
  with pytest.raises(ValueError, match=message):
    sources.open_source(data.format(root), "train")
