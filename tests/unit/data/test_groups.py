"""Splits that keep the images of a group, such as a patient, together."""

import collections
import json
import pathlib
import re

import pytest

from tests import packing
from vitjax.data import sources
from vitjax.data.sources import folder, labels

PATIENT = r":group=(patient\d+)"
FOLDS = [f":fold={i}/5" for i in range(1, 6)]


def write(root, files):
  for file in files:
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_bytes(b"")


@pytest.fixture
def root(tmp_path):
  """60 patients with 1 to 7 images each; every tenth also has rare ones."""
  for patient in range(60):
    name = "ab"[patient % 2]
    write(
      tmp_path,
      [f"{name}/patient{patient}_{i}.png" for i in range(patient % 7 + 1)],
    )
    if patient % 10 == 0:
      write(tmp_path, [f"rare/patient{patient}_x.png"])
  return tmp_path


def split_of(data, split):
  source = sources.open_source(data, split)
  return {source.describe(i) for i in range(source.num_examples)}


def patients(paths):
  return {re.search(r"patient\d+", path)[0] for path in paths}


def classes(paths):
  return collections.Counter(path.split("/")[-2] for path in paths)


@pytest.mark.parametrize("fold", ["", *FOLDS])
def test_no_group_is_in_two_splits(root, fold):
  data = f"folder:{root}{PATIENT}{fold}"
  train, val = (split_of(data, x) for x in ("train", "val"))
  assert train | val == split_of(f"folder:{root}", "train+val")
  assert not patients(train) & patients(val)
  # Each class is in either split, but for the rare one: 6 patients in 5 folds.
  assert set(classes(train)) == set(classes(val)) == {"a", "b", "rare"}


def test_each_group_is_in_val_of_one_fold(root):
  vals = [
    patients(split_of(f"folder:{root}{PATIENT}{x}", "val")) for x in FOLDS
  ]
  assert sum(map(len, vals)) == len(set().union(*vals)) == 60
  assert all(11 <= len(val) <= 13 for val in vals), vals
  # The order of the options does not matter.
  assert (
    patients(split_of(f"folder:{root}{FOLDS[0]}{PATIENT}", "val")) == (vals[0])
  )


def test_images_of_known_groups_move_nothing(root):
  data = f"folder:{root}{PATIENT}"
  before = {x: patients(split_of(f"{data}{x}", "val")) for x in ("", *FOLDS)}
  write(root, [f"a/patient2_new{i}.png" for i in range(9)])
  write(root, [f"b/patient3_new{i}.png" for i in range(9)])
  for fold, val in before.items():
    assert patients(split_of(f"{data}{fold}", "val")) == val
  write(root, ["a/patient100_1.png"])
  moved = before[""] - patients(split_of(data, "val"))
  assert len(moved) <= 1


def test_a_table_names_a_column(root, caplog):
  files = sorted(split_of(f"folder:{root}", "train+val"))
  rows = [
    f"{x.removeprefix(f'{root}/')},{x.split('/')[-2]},{patients([x]).pop()},1"
    for x in files
  ]
  (root / "x.csv").write_text("\n".join(["file,label,who,age", *rows]))
  for fold in ("", *FOLDS):
    want = split_of(f"folder:{root}{PATIENT}{fold}", "val")
    assert split_of(f"labels:{root}/x.csv:group=who{fold}", "val") == want
    assert split_of(f"labels:{root}/x.csv{PATIENT}{fold}", "val") == want
  assert (
    labels.read(f"labels:{root}/x.csv:group=who")
    .notes[0]
    .startswith(
      "ignored column(s): 'age'. The columns that are used are file, label, "
      "split, who"
    )
  )


def test_the_parent_folder(tmp_path):
  write(
    tmp_path,
    [f"{x}/day{i}/{j}.png" for x in "ab" for i in range(20) for j in range(3)],
  )
  data = f"folder:{tmp_path}:group=parent"
  train, val = (
    {path.split("/")[-2] for path in split_of(data, x)}
    for x in ("train", "val")
  )
  # Folders of one name are one group, whatever class they are in.
  assert len(val) == 2 and not train & val and len(train | val) == 20


def test_shards_have_the_groups_of_the_folder(
  root, tmp_path_factory, monkeypatch
):
  """By a column of Parquet, a key of JSON, or a regex of names."""
  shards = tmp_path_factory.mktemp("shards")
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
  paths = [pathlib.Path(x) for x in sorted(split_of(str(root), "train+val"))]
  for shard in range(2):
    own = paths[shard::2]
    facts = [patients([x.name]).pop() for x in own]
    packing.write_parquet(
      shards / f"{shard}.parquet",
      {
        "image": [{"bytes": b"", "path": x.name} for x in own],
        "label": [x.parent.name for x in own],
        "who": facts,
      },
    )
    members = []
    for path, who in zip(own, facts):
      name = f"{path.parent.name}/{path.stem}"
      told = json.dumps({"label": path.parent.name, "who": who}).encode()
      members += [(f"{name}.png", b""), (f"{name}.json", told)]
    packing.write_tar(shards / f"{shard}.tar", members)
  for fold in ("", FOLDS[1]):
    want = patients(split_of(f"folder:{root}{PATIENT}{fold}", "val"))
    for kind in ("wds", "parquet"):
      for rule in (":group=who", PATIENT):
        data = f"{kind}:{shards}{rule}{fold}"
        train, val = (patients(split_of(data, x)) for x in ("train", "val"))
        assert val == want and not train & val
  # The folder in a tar file is that of the class, which is one group then.
  assert len(split_of(f"wds:{shards}:group=parent", "train")) == len(paths)
  with pytest.raises(ValueError, match=r"group=whom: 120 image.s. have no"):
    split_of(f"wds:{shards}:group=whom", "val")
  data = f"parquet:{shards}"
  with pytest.raises(ValueError, match=r"column 'whom'.*mean 'who'\?"):
    split_of(f"{data}:group=whom", "val")
  with pytest.raises(ValueError, match="lie in no folder"):
    split_of(f"{data}:group=parent", "val")


def test_what_was_done_is_said(root, caplog):
  caplog.set_level("INFO")
  data = f"folder:{root}{PATIENT}:fold=2/5"
  sources.open_source(data, "val")
  train, val = (split_of(data, x) for x in ("train", "val"))
  counts = classes(val)
  assert (
    f"split by fold=2/5 and group=(patient\\d+): train {len(train)} images of "
    f"{len(patients(train))} groups" in caplog.text
  )
  assert (
    f"val {len(val)} images of {len(patients(val))} groups (a {counts['a']}, "
    f"b {counts['b']}, rare {counts['rare']})." in caplog.text
  )


def test_groups_in_the_splits_of_the_data_are_compared(tmp_path):
  write(
    tmp_path,
    [f"{x}/cat/patient{i}.png" for x in ("train", "test") for i in range(3)],
  )
  write(tmp_path, ["val/cat/patient9.png", "val/cat/patient10.png"])
  listing = folder.read(f"folder:{tmp_path}{PATIENT}")
  assert listing.notes == [
    "3 group(s) are in more than one split: 'patient0' (test, train), "
    "'patient1' (test, train), 'patient2' (test, train)."
  ]
  assert not listing.summary
  assert {x: len(y) for x, y in listing.splits.items()} == {
    "train": 3,
    "test": 3,
    "val": 2,
  }


def test_a_class_of_one_group_is_named(tmp_path):
  write(tmp_path, [f"a/p{i}.png" for i in range(9)] + ["b/p100.png"] * 3)
  listing = folder.read(rf"folder:{tmp_path}:group=(p\d+):fold=1/3")
  assert listing.notes == [
    "class(es) with a single group, which is in train and never in val: 'b'."
  ]


def test_classes_that_share_groups_are_in_val(tmp_path):
  # The groups of a are those of b and one more, so none of b's are its own.
  write(tmp_path, [f"{x}/p{i}.png" for x in "ab" for i in range(6)])
  write(tmp_path, ["c/p0.png"])
  listing = folder.read(rf"folder:{tmp_path}:group=(p\d+):fold=1/3")
  assert [x for x in listing.notes if "single" in x] == [
    "class(es) with a single group, which is in train and never in val: 'c'."
  ]


@pytest.mark.parametrize(
  ("data", "message"),
  [
    (r"{}:group=patient", "group=patient has no parentheses. Write group=pare"),
    (r"{}:group=(", r"group=\( is no regex: .*Write group=parent"),
    (r"{}:group=", "group= is empty. Write group=parent"),
    (r"{}:group=(_x)", "234 image.s. have no group: 'a/patient"),
    (r"{}:group=(a):group=(b)", "has an option twice"),
    (r"digits:group=(a)", "parquet: have folds and groups"),
  ],
)
def test_refusals(root, data, message):
  with pytest.raises(ValueError, match=message):
    sources.open_source(data.format(root), "train")
