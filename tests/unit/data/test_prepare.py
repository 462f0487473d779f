"""ImageNet from archives of the official layout, also interrupted."""

import hashlib
import io
import signal
import subprocess
import sys
import tarfile
import time

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow_datasets.datasets.imagenet2012 import (
  imagenet2012_dataset_builder as official,
)

from vitjax.data import pipeline, prepare, sources
from vitjax.data.pp import builder

WNIDS = ("n01440764", "n01443537", "n02099601")
LABELS = (0, 1, 207)


def encoded(rng, mode="RGB", form="JPEG"):
  out = io.BytesIO()
  pixels = rng.integers(0, 256, (*rng.integers(8, 40, 2), 3), np.uint8)
  Image.fromarray(pixels).convert(mode).save(out, form)
  return out.getvalue()


def tar_of(files):
  out = io.BytesIO()
  with tarfile.open(fileobj=out, mode="w") as tar:
    for name, data in files.items():
      member = tarfile.TarInfo(name)
      member.size = len(data)
      tar.addfile(member, io.BytesIO(data))
  return out.getvalue()


@pytest.fixture(scope="module")
def images():
  """Split -> file name -> bytes.

  One is in CMYK, as 22 official ones, and one is a PNG, as one official one.
  """
  rng = np.random.default_rng(0)
  train = {
    f"{wnid}_{7 * i + 1}.JPEG": encoded(rng) for wnid in WNIDS for i in range(7)
  }
  train[official.CMYK_IMAGES[0]] = encoded(rng, "CMYK")
  train[official.PNG_IMAGES[0]] = encoded(rng, form="PNG")
  val = {f"ILSVRC2012_val_{i:08d}.JPEG": encoded(rng) for i in range(1, 7)}
  return {"train": train, "validation": val}


@pytest.fixture(scope="module")
def tars(images, tmp_path_factory):
  folder = tmp_path_factory.mktemp("tars")
  classes = sorted({name.split("_")[0] for name in images["train"]})
  inner = {
    f"{wnid}.tar": tar_of(
      {k: v for k, v in images["train"].items() if k.startswith(wnid)}
    )
    for wnid in classes
  }
  (folder / "ILSVRC2012_img_train.tar").write_bytes(tar_of(inner))
  # The order in the archive is not that of the labels.
  val = dict(reversed(images["validation"].items()))
  (folder / "ILSVRC2012_img_val.tar").write_bytes(tar_of(val))
  return folder


@pytest.fixture
def small_shards(monkeypatch):
  monkeypatch.setattr(prepare, "_SHARD_BYTES", 4000)


def files_of(folder):
  return {
    path.name: hashlib.sha256(path.read_bytes()).hexdigest()
    for path in folder.iterdir()
  }


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_every_image_with_its_label(tars, images, tmp_path, file_format):
  folder = prepare.prepare_imagenet(
    tars, tmp_path, partial=True, file_format=file_format
  )
  assert [x.name for x in tmp_path.iterdir()] == ["imagenet2012"]
  assert folder == tmp_path / "imagenet2012" / "5.1.0"
  for split, found in images.items():
    source = sources.open_source("imagenet2012", split, data_dir=str(tmp_path))
    assert source.num_examples == len(found)
    assert source.class_names[207] == "n02099601"
    seen = {}
    fetched = source.fetch(tf.range(len(found), dtype=tf.int64))
    for i in range(len(found)):
      row = source.parse({k: v[i] for k, v in fetched.items()})
      name = row["file_name"].numpy().decode()
      seen[name] = row["image"].numpy(), int(row["label"])
    assert seen.keys() == found.keys()

    # Shuffled, by what does not depend on the archive.
    def digest(name):
      return hashlib.sha256(name.encode()).hexdigest()

    assert list(seen) == sorted(seen, key=digest)
    for name, (data, label) in seen.items():
      image = Image.open(io.BytesIO(data))
      assert (image.format, image.mode) == ("JPEG", "RGB"), name
      if name in (*official.CMYK_IMAGES, *official.PNG_IMAGES):
        assert image.size == Image.open(io.BytesIO(found[name])).size, name
        continue
      assert data == found[name], name
      if split == "train":
        assert source.class_names[label] == name.split("_")[0]
      elif name == "ILSVRC2012_val_00000001.JPEG":
        # As every reader of the devkit knows: a sea snake.
        assert source.class_names[label] == "n01751748"


def test_a_run_reads_it(tars, tmp_path):
  prepare.prepare_imagenet(tars, tmp_path, partial=True)
  source = sources.open_source(
    "imagenet2012", "train[:50%]", data_dir=str(tmp_path)
  )
  pp = builder.build("decode|resize(16)|keep('image', 'label')")
  batches = list(pipeline.eval_batches(source, pp, batch_size=8))
  assert sum(int(batch["mask"].sum()) for batch in batches) == 12
  assert batches[0]["image"].shape == (8, 16, 16, 3)


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_interrupted_everywhere(tars, tmp_path, small_shards, file_format):
  """The files are those of a run that nothing happened to, to the bit."""

  def run(folder, log=lambda line: None):
    return prepare.prepare_imagenet(
      tars, tmp_path / folder, partial=True, file_format=file_format, log=log
    )

  want = files_of(run("straight"))
  assert len(want) > 6
  for stop in range(1, len(want) - 3):
    lines = []

    def log(line, lines=lines, stop=stop):
      lines.append(line)
      if len(lines) == stop + 2:
        raise KeyboardInterrupt

    name = "interrupted"
    try:
      run(name, log)
    except KeyboardInterrupt:
      assert not (tmp_path / name / "imagenet2012").exists()
  # As kill -9 leaves it.
  work = tmp_path / name / ".imagenet2012-5.1.0.partial"
  for path in list(work.glob("imagenet2012-*"))[:1]:
    (work / f"{path.name}.tmp").write_bytes(b"half a shard")
    path.unlink()
  assert files_of(run(name)) == want
  assert [x.name for x in (tmp_path / name).iterdir()] == ["imagenet2012"]
  # Once more: it is there.
  lines = []
  run(name, lines.append)
  assert "is prepared already" in lines[0]


def test_finished_shards_are_not_written_again(tars, tmp_path, small_shards):
  def log(line):
    if line.startswith("train: 3 of"):
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    prepare.prepare_imagenet(tars, tmp_path, partial=True, log=log)
  work = tmp_path / ".imagenet2012-5.1.0.partial"
  before = {x.name: x.stat().st_mtime_ns for x in work.glob("imagenet2012-*")}
  assert len(before) == 3
  folder = prepare.prepare_imagenet(tars, tmp_path, partial=True)
  for name, time_ns in before.items():
    assert (folder / name).stat().st_mtime_ns == time_ns


@pytest.mark.slow
def test_killed(tars, tmp_path):
  """By SIGKILL, at moments that the clock chooses."""
  script = (
    "import sys; from vitjax.data import prepare; prepare._SHARD_BYTES = 4000; "
    "write = prepare._write; import time\n"
    "def slowly(*a): time.sleep(0.1); write(*a)\n"
    "prepare._write = slowly\n"
    "prepare.prepare_imagenet(*sys.argv[1:], partial=True, log=print)"
  )

  def start(folder):
    return subprocess.Popen(
      [sys.executable, "-u", "-c", script, str(tars), str(tmp_path / folder)],
      stdout=subprocess.PIPE,
      text=True,
    )

  with start("straight") as process:
    process.communicate()
  for lines, wait in ((2, 0.05), (4, 0.13)):
    with start("killed") as process:
      for _ in range(lines):
        process.stdout.readline()
      time.sleep(wait)
      process.send_signal(signal.SIGKILL)
  with start("killed") as process:
    assert process.wait() == 0
  inner = "imagenet2012/5.1.0"
  want = files_of(tmp_path / "straight" / inner)
  assert files_of(tmp_path / "killed" / inner) == want


def test_what_is_not_official_is_refused(tars, tmp_path, monkeypatch):
  with pytest.raises(ValueError, match=r"has 23 images, and the official"):
    prepare.prepare_imagenet(tars, tmp_path)
  with pytest.raises(ValueError, match=r"train\.tar is missing\. Get ILSVRC"):
    prepare.prepare_imagenet(tmp_path, tmp_path)
  assert not list(tmp_path.iterdir())  # not even an empty folder
  counts = {
    split: (name, count, md5)
    for (split, (name, _, md5)), count in zip(prepare.ARCHIVES.items(), (23, 6))
  }
  monkeypatch.setattr(prepare, "ARCHIVES", counts)
  with pytest.raises(ValueError, match=r"has the MD5 .* it is damaged"):
    prepare.prepare_imagenet(tars, tmp_path)
  digests = {
    split: (name, n, hashlib.md5((tars / name).read_bytes()).hexdigest())
    for split, (name, n, _) in counts.items()
  }
  monkeypatch.setattr(prepare, "ARCHIVES", digests)
  lines = []
  prepare.prepare_imagenet(tars, tmp_path, log=lines.append)
  assert sum("Checking the MD5" in line for line in lines) == 2


def test_damaged_archives(tars, tmp_path):
  whole = (tars / "ILSVRC2012_img_train.tar").read_bytes()
  path = tmp_path / "ILSVRC2012_img_train.tar"
  for content, message in (
    (whole[: len(whole) - 12_000], "cut off|cannot be read"),
    (whole[:1024], "cut off|cannot be read|has no images"),
    (b"no archive at all" * 100, "cannot be read"),
    (tar_of({"n01440764.tar": tar_of({"n02_1.JPEG": b"x"})}), "is no image of"),
    (tar_of({}), "has no images"),
  ):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
      prepare.prepare_imagenet(tmp_path, tmp_path / "out", partial=True)


def test_other_archives_do_not_mix(tars, tmp_path, small_shards):
  def log(line):
    if line.startswith("train: 2 of"):
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    prepare.prepare_imagenet(tars, tmp_path / "out", partial=True, log=log)
  with pytest.raises(ValueError, match="was started from other archives"):
    prepare.prepare_imagenet(
      tars, tmp_path / "out", partial=True, file_format="tfrecord"
    )
