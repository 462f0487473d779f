"""Tar shards and Parquet files: the images of a folder, and damaged files."""

import io
import os
import shutil
import tarfile

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests import packing
from vitjax.data import pipeline, sources
from vitjax.data.checking import check
from vitjax.data.pp import builder
from vitjax.data.sources import parquet, shards, wds
from vitjax.data.sources.source import DatasetNotPreparedError
from vitjax.data.tf import tf

CLASSES = ["ant", "bee", "cow"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  return tmp_path / "cache"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  """The same images as a folder, tar shards and Parquet files."""
  root = tmp_path_factory.mktemp("written")
  number = 0
  for split, count in (("train", 8), ("val", 3)):
    for name in CLASSES:
      folder = root / "folder" / split / name
      folder.mkdir(parents=True)
      for _ in range(count):
        kind = ("jpeg", "png", "webp")[number % 3]
        content = packing.picture(number, kind)
        (folder / f"{number}.{kind}").write_bytes(content)
        number += 1
  packing.pack(root / "folder", root / "tars", root / "parquets")
  # Compressed, in row groups of five rows.
  for path in (root / "parquets").rglob("*.parquet"):
    target = root / "snappy" / path.name
    target.parent.mkdir(exist_ok=True)
    pq.write_table(pq.read_table(path), target, row_group_size=5)
  return root


def source_of(data, split="train", **options):
  return sources.open_source(str(data), split, **options)


def content_of(source):
  """Images and names of classes in no order; each is fetched with others."""
  indices = np.random.default_rng(0).permutation(source.num_examples)
  features = source.fetch(tf.constant(indices, tf.int64))
  parsed = [
    source.parse({name: x[i] for name, x in features.items()})
    for i in range(len(indices))
  ]
  return sorted(
    (x["image"].numpy(), source.class_names[x["label"].numpy()]) for x in parsed
  )


NAMES = ("tars", "parquets", "snappy")
KINDS = {"tars": "wds", "parquets": "parquet", "snappy": "parquet"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("split", ["train", "validation", "train[5:9]+val"])
def test_shards_have_the_images_of_the_folder(written, name, split):
  source = source_of(f"{KINDS[name]}:{written / name}", split)
  assert source.class_names == tuple(CLASSES)
  got = content_of(source)
  if split != "train[5:9]+val":
    assert got == content_of(source_of(written / "folder", split))
  assert source.num_examples == len(got)
  labels = [CLASSES.index(name) for _, name in got]
  assert np.bincount(source.labels).tolist() == np.bincount(labels).tolist()


def test_positions_are_used_where_the_file_has_the_bytes(written):
  for name, kind in (("parquets", shards.Member), ("snappy", parquet.Row)):
    source = source_of(f"parquet:{written / name}")
    assert {type(file) for file in source.files} == {kind}


@pytest.mark.parametrize("name", NAMES)
def test_names_of_files_divide_as_in_a_folder(written, tmp_path, name):
  """Names of splits removed: a tenth by hash, or folds."""
  kind, files = KINDS[name], sorted((written / name).rglob("*-0*"))
  for number, path in enumerate(files):
    (tmp_path / f"{number}{path.suffix}").write_bytes(path.read_bytes())
  data = f"{kind}:{tmp_path}"
  train, val = (content_of(source_of(data, x)) for x in ("train", "val"))
  assert (len(train), len(val)) == (30, 3)
  assert {label for _, label in val} == set(CLASSES)
  whole = sorted(train + val)
  folds = [source_of(f"{data}:fold={i}/4", "val") for i in range(1, 5)]
  assert sorted(x for fold in folds for x in content_of(fold)) == whole
  if kind == "parquet":  # which keeps the names of files, and these decide
    shutil.copytree(written / "folder" / "train", tmp_path / "folder")
    shutil.copytree(
      written / "folder" / "val", tmp_path / "folder", dirs_exist_ok=True
    )
    assert val == content_of(source_of(tmp_path / "folder", "val"))


def test_sampling_and_class_names_of_a_model(written):
  batch = next(
    pipeline.train_batches(
      source_of(f"wds:{written / 'tars'}", "train[:18]"),
      builder.build("decode|resize(8)"),
      batch_size=18,
      seed=0,
      start_step=0,
      total_steps=1,
      sampling="balanced",
    )
  )
  assert np.bincount(batch["label"]).tolist() == [6, 6, 6]
  names = ["cow", "dog", "bee", "ant"]
  source = source_of(f"parquet:{written / 'parquets'}", class_names=names)
  assert set(source.labels.tolist()) == {0, 2, 3}
  with pytest.raises(ValueError, match=r"not among the 2 classes.*'cow'"):
    source_of(f"wds:{written / 'tars'}", class_names=["ant", "bee"])


@pytest.mark.parametrize(
  ("pattern", "expected"),
  [
    ("a-{08..11}.tar", ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]),
    ("{9..10}", ["9", "10"]),
    ("{b,c}/{0..1}", ["b/0", "b/1", "c/0", "c/1"]),
  ],
)
def test_braces(pattern, expected):
  assert shards.expand(pattern) == expected


@pytest.mark.parametrize(
  ("names", "splits"),
  [
    (["data/train-00000-of-00002.x", "data/test-0.x"], {"train", "test"}),
    (["train/000.x", "valid/000.x"], {"train", "val"}),
    (["birds-train-000.x", "birds_dev_1.x"], {"train", "val"}),
    (["training/test-0.x", "constrained.x"], {"test", None}),
  ],
)
def test_splits_by_name(names, splits):
  assert {shards._split_of(name) for name in names} == splits


def test_missing_shards_and_shards_without_a_split(written, tmp_path):
  with pytest.raises(DatasetNotPreparedError, match=r"no such file.*-002.tar'"):
    source_of(f"wds:{written}/tars/train-{{000..002}}.tar")
  source = source_of(f"wds:{written}/tars/train-{{000..001}}.tar")
  assert source.num_examples == 24
  with pytest.raises(ValueError, match=r"no split 'val'. It has: train \(24\)"):
    source_of(f"wds:{written}/tars/train-*.tar", "val")
  shutil.copytree(written / "tars", tmp_path / "tars")
  (tmp_path / "tars" / "train-000.tar").rename(tmp_path / "tars" / "x.tar")
  with pytest.raises(ValueError, match=r"1 of 4 files have no split.*'x.tar'"):
    source_of(f"wds:{tmp_path / 'tars'}")


def test_compressed_shards_alone(tmp_path):
  for name in ("b.tgz", "a.tar.gz"):
    (tmp_path / name).write_bytes(b"")
  with pytest.raises(
    ValueError, match=r"no .tar files, but 2 compressed ones: 'a.tar.gz', 'b.t"
  ):
    source_of(f"wds:{tmp_path}")
  packing.write_tar(tmp_path / "0.tar", [("a.jpg", b"1"), ("a.cls", b"0")])
  assert source_of(f"wds:{tmp_path}").num_examples == 1


def test_paths_that_look_like_patterns(written, tmp_path):
  shutil.copytree(written / "tars", tmp_path / "[old]")
  source = source_of(f"wds:{tmp_path}/[old]")
  assert source.num_examples == 24
  source = source_of(f"wds:{tmp_path}/[old]/train-000.tar")
  assert source.num_examples == 12


def test_a_folder_of_the_hubs_cache(written, tmp_path):
  """Files are links to blobs; refs/main says the revision."""
  root = tmp_path / "datasets--me--bugs"
  for revision in ("old", "new"):
    snapshot = root / "snapshots" / revision
    (snapshot / "data").mkdir(parents=True)
    (root / "blobs").mkdir(exist_ok=True)
    for path in (written / "parquets" / "data").iterdir():
      blob = root / "blobs" / f"{revision}{path.name.encode().hex()}"
      shutil.copy(path, blob)
      (snapshot / "data" / path.name).symlink_to(
        os.path.relpath(blob, snapshot / "data")
      )
  with pytest.raises(DatasetNotPreparedError, match="has 2 revisions"):
    source_of(f"parquet:{root}")
  (root / "refs").mkdir()
  (root / "refs" / "main").write_text("new\n")
  source = source_of(f"parquet:{root}")
  assert content_of(source) == content_of(source_of(written / "folder"))
  assert "snapshots/new/" in source.describe(0)
  folds = [source_of(f"parquet:{root}:fold={i}/3", "val") for i in (1, 2, 3)]
  assert sum(fold.num_examples for fold in folds) == 33


@pytest.mark.parametrize("compression", ["none", "snappy"])
@pytest.mark.parametrize("use_dictionary", [False, True])
def test_every_encoding_gives_the_same_bytes(
  tmp_path, compression, use_dictionary
):
  """Also the same image twice, which a dictionary stores once."""
  images = [packing.picture(i % 4) for i in range(9)] + [b""]
  path = tmp_path / "0.parquet"
  packing.write_parquet(
    path,
    {"image": images, "label": ["a", "b"] * 5},
    compression=compression,
    use_dictionary=use_dictionary,
    row_group_size=6,
  )
  source = source_of(f"parquet:{path}", "train+val")
  assert source.num_examples == 10
  kinds = {type(x) for x in source.files}
  assert kinds == {shards.Member if compression == "none" else parquet.Row}
  got = {x.path: x.read(tmp_path) for x in source.files}
  assert [got[name] for name in sorted(got)] == images


def test_ids_names_json_and_text_are_labels(tmp_path):
  image = packing.picture(0)
  members = [
    ("a.cls", b"2\n"),
    ("a.jpg", image),
    ("b.json", b'{"label": 0, "width": 3}'),
    ("c.jpg", image),  # the members of c and b take turns
    ("b.JPG", image),
    ("c.txt", b"1"),
    ("c.seg.png", b"a mask"),
    ("._a.jpg", b"of macOS"),
    ("LICENSE", b"text"),
    ("d.txt", b"no image"),
  ]
  packing.write_tar(tmp_path / "train.tar", members)
  source = source_of(f"wds:{tmp_path}")
  assert source.num_classes == 3
  assert dict(zip([x.path for x in source.files], source.labels.tolist())) == {
    "train.tar/a.jpg": 2,
    "train.tar/b.JPG": 0,
    "train.tar/c.jpg": 1,
  }
  report = check.check(f"wds:{tmp_path}")
  assert "without an image: 'train.tar/d.txt'." in " ".join(report.warnings)
  (tmp_path / "classes.txt").write_text("ant\nbee\ncow\ndog\n")
  source = source_of(f"wds:{tmp_path}")
  assert source.class_names == ("ant", "bee", "cow", "dog")
  assert sorted(source.labels.tolist()) == [0, 1, 2]


def test_captions_are_not_taken_for_classes(tmp_path, caplog):
  members = [
    (f"{i}.{name}", content)
    for i in range(200)
    for name, content in (("jpg", b"x"), ("txt", f"a cat and {i}".encode()))
  ]
  packing.write_tar(tmp_path / "train.tar", members)
  source_of(f"wds:{tmp_path}")
  assert "200 images have 200 different labels: are these cap" in caplog.text


def test_long_names_are_read(tmp_path):
  name = "folder/" * 40 + "é" * 120
  image = packing.picture(0)
  for number, kind in enumerate((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
    with tarfile.open(tmp_path / f"{number}.tar", "w", format=kind) as tar:
      for extension, content in (("jpg", image), ("cls", b"ant")):
        info = tarfile.TarInfo(f"{name}.{extension}")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
  source = source_of(f"wds:{tmp_path}", "train+val")
  assert content_of(source) == [(image, "ant")] * 2


@pytest.mark.parametrize(
  ("members", "message"),
  [
    (
      [("a.jpg", b"x"), ("b.jpg", b"x"), ("b.cls", b"0")],
      r"0.tar: 1 image\(s\) without a label: 'a.jpg'",
    ),
    ([("a.jpg", b"x"), ("a.cls", b" ")], "without a label: 'a.jpg'"),
    ([("a.jpg", b"x"), ("a.jpg", b"y")], "0.tar has two members 'a.jpg'"),
    ([("a.jpg", b"x"), ("a.png", b"y")], "'a' has 2 images: 'a.jpg', 'a.png'"),
    ([("a.jpg", b"x"), ("a.json", b"{")], "0.tar: 'a.json': Expecting"),
    ([("a.jpg", b"x"), ("a.cls", b"\xff")], "0.tar: 'a.cls': 'utf-8' codec"),
    ([("readme.txt", b"x")], "0.tar has no images"),
  ],
)
def test_wrong_members_are_named(tmp_path, members, message):
  packing.write_tar(tmp_path / "0.tar", members)
  with pytest.raises(ValueError, match=message):
    source_of(f"wds:{tmp_path}")


def test_damaged_tar_files_are_named(tmp_path):
  members = [(f"{i}.{x}", b"1" * 600) for i in range(3) for x in ("jpg", "cls")]
  path = tmp_path / "0.tar"
  packing.write_tar(path, members)
  whole = path.read_bytes()
  spoilt = bytearray(whole)
  spoilt[3 * 1536 + 5 : 3 * 1536 + 9] = b"oops"  # in the header of 1.cls
  for content, message in (
    (whole[: 4 * 1536], "cut off after '1.cls': it has no end mark"),
    (whole[: 4 * 1536 + 800], "cut off after '2.jpg'"),
    (whole[: 4 * 1536 + 200], "cut off after '1.cls'"),
    (bytes(spoilt), "cut off after '1.jpg': it has no end mark"),
    (b"\x1f\x8b" + whole, "is compressed"),
    (b"", "is not a tar file"),
  ):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
      source_of(f"wds:{path}")


@pytest.mark.parametrize(
  ("columns", "message"),
  [
    (
      {"image": [b"x", None], "label": [0, 1]},
      r"0.parquet: row 1 has no image \(null\)",
    ),
    (
      {"image": [{"bytes": None}, {"bytes": b"x"}], "label": [0, 1]},
      "row 0 has no image",
    ),
    ({"image": [{"bytes": b"x"}, None], "label": [0, 1]}, "row 1 has no image"),
    ({"image": [b"x", b"y"], "label": ["a", None]}, "row 1 has no label"),
    ({"img": [b"x"], "label": [0]}, r"has the columns img \(binary\), label"),
    ({"image": [b"x"], "label": [0.5]}, "needs 'image'.*an integer"),
    ({"image": [b""], "label": [0]}, None),
  ],
)
def test_wrong_columns_are_named(tmp_path, columns, message):
  packing.write_parquet(tmp_path / "0.parquet", columns)
  data = f"parquet:{tmp_path}"
  if message is None:
    assert "is empty" in " ".join(check.check(data).problems)
    return
  with pytest.raises(ValueError, match=message):
    source_of(data)


def test_damaged_parquet_files_are_named(written, tmp_path):
  path = tmp_path / "0.parquet"
  whole = next((written / "parquets").rglob("*.parquet")).read_bytes()
  footer = bytearray(whole)
  footer[-100:-8] = bytes(92)
  for content in (whole[:-9], b"", bytes(footer)):
    path.write_bytes(content)
    with pytest.raises(
      ValueError, match=r"0.parquet is not a Parquet file, or"
    ):
      source_of(f"parquet:{path}")


def test_secret_labels_are_refused_only_where_they_are_used(tmp_path):
  for split, labels in (("train", [0, 1]), ("test", [-1, -1])):
    packing.write_parquet(
      tmp_path / f"{split}.parquet",
      {"image": [b"x", b"y"], "label": labels},
      ["ant", "bee"],
    )
  assert source_of(f"parquet:{tmp_path}").num_examples == 2
  with pytest.raises(ValueError, match=r"'test' has class.*'-1'"):
    source_of(f"parquet:{tmp_path}", "test")


def test_undecodable_members_are_found(written, tmp_path):
  good = packing.picture(0)
  members = [("a.jpg", good), ("a.cls", b"0"), ("b.jpg", good[:500])]
  packing.write_tar(tmp_path / "0.tar", [*members, ("b.cls", b"1")])
  data = f"wds:{tmp_path}"
  assert list(check.check(data).unreadable) == [f"{tmp_path}/0.tar/b.jpg"]
  batches = pipeline.eval_batches(
    source_of(data, "train+val"),
    builder.build("decode|resize(8)"),
    batch_size=2,
  )
  with pytest.raises(pipeline.InputError, match=r"read .*/0.tar/b.jpg \(ex"):
    list(batches)
  report = check.check(f"parquet:{written / 'parquets'}")
  assert not report.problems
  assert report.splits["train"].classes == {"ant": 8, "bee": 8, "cow": 8}


def test_an_index_is_made_once_and_again_after_a_change(
  tmp_path, cache, monkeypatch
):
  path = tmp_path / "data" / "0.tar"
  content = [("a.jpg", b"123"), ("a.cls", b"0")]
  packing.write_tar(path, content)
  walks = []

  def counted(file):
    walks.append(file.path)
    return made(file)

  made = wds.make_index
  monkeypatch.setattr(wds, "make_index", counted)
  for _ in range(2):
    source_of(f"wds:{path}")
  assert len(walks) == 1
  # Of the same size, but changed since.
  packing.write_tar(path, [("b.jpg", b"456"), ("b.cls", b"1")])
  os.utime(path, ns=(0, 1))
  assert source_of(f"wds:{path}").describe(0).endswith("0.tar/b.jpg")
  (kept,) = cache.rglob("*.npz")
  kept.write_bytes(b"rubbish")
  assert source_of(f"wds:{path}").num_examples == 1
  assert len(walks) == 3


def test_a_cache_that_cannot_be_written_costs_only_time(
  tmp_path, monkeypatch, caplog
):
  packing.write_tar(tmp_path / "0.tar", [("a.jpg", b"1"), ("a.cls", b"0")])
  (tmp_path / "file").touch()
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
  for _ in range(2):
    assert source_of(f"wds:{tmp_path}").num_examples == 1
  assert caplog.text.count("Cannot keep indexes of data files") == 1
  assert not list((tmp_path / "file").parent.glob("tmp*"))


def test_a_shard_cut_after_the_start_is_an_error(tmp_path):
  path = tmp_path / "0.tar"
  packing.write_tar(path, [("a.jpg", b"123"), ("a.cls", b"0")])
  source = source_of(f"wds:{path}")
  path.write_bytes(path.read_bytes()[:513])
  with pytest.raises(ValueError, match=r"0.tar is shorter than at the start"):
    source.files[0].read(tmp_path)


def test_row_groups_in_memory_are_bounded(written):
  path = str(next((written / "snappy").glob("train-00000*")))
  groups = parquet._RowGroups(1)
  first = groups.read(path, 0)
  assert groups.read(path, 0) is first
  second = groups.read(path, 1)
  assert groups.read(path, 1) is second and len(groups._kept) == 1
  assert groups._bytes == second.nbytes
