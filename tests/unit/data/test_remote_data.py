"""Shards in object stores, on servers of this machine."""

import asyncio
import sys

import pytest
import tensorflow as tf

from tests import fake_gcs, fake_s3, packing, stores
from tests.unit.data.test_shards import content_of
from vitjax.config import places
from vitjax.data import sources
from vitjax.data.checking import check
from vitjax.data.sources import files, kept_index, records, wds
from vitjax.data.sources.source import DatasetNotPreparedError

PACKAGES = stores.PACKAGES


@pytest.fixture(params=PACKAGES)
def store(request, monkeypatch, tmp_path):
  """(URL of a bucket, the bucket)."""
  pytest.importorskip(PACKAGES[request.param])
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  with stores.serve(request.param, monkeypatch) as bucket:
    yield f"{request.param}://bucket", bucket


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  """The same images as tar shards and Parquet files."""
  root = tmp_path_factory.mktemp("written")
  for number in range(12):
    split, name = ("train", "val")[number % 3 == 2], "ab"[number % 2]
    path = root / "folder" / split / name / f"{number}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(packing.picture(number, "png"))
  packing.pack(root / "folder", root / "tars", root / "parquets")
  return root


def upload(bucket, folder, prefix=""):
  for path in folder.rglob("*"):
    if path.is_file():
      name = f"{prefix}{path.relative_to(folder).as_posix()}"
      bucket.put(name, path.read_bytes())


@pytest.mark.parametrize("kind", ["wds", "parquet"])
def test_shards_have_the_images_of_local_ones(store, written, kind):
  url, bucket = store
  local = written / {"wds": "tars", "parquet": "parquets"}[kind]
  upload(bucket, local, "my data/")
  for split in ("train", "val"):
    want = sources.open_source(f"{kind}:{local}", split)
    source = sources.open_source(f"{kind}:{url}/my data", split)
    assert source.fingerprint == want.fingerprint
    assert content_of(source) == content_of(want)
  assert source.describe(0).startswith(f"{url}/my data/")
  pattern = {"wds": "train-{000..001}.tar", "parquet": "*/train-*.parquet"}
  source = sources.open_source(f"{kind}:{url}/my data/{pattern[kind]}", "train")
  assert source.num_examples == 8
  report = check.check(f"{kind}:{url}/my data")
  assert not report.problems and report.splits["train"].examples == 8


def test_one_file_and_names_of_classes(store):
  url, bucket = store
  members = [("a.png", packing.picture(0, "png")), ("a.cls", b"1")]
  bucket.put("x/train.tar", packing.tar_of(members))
  bucket.put("x/classes.txt", b"ant\nbee\n")
  source = sources.open_source(f"wds:{url}/x/train.tar", "train")
  assert source.class_names == ("ant", "bee")
  assert source.labels.tolist() == [1]


def test_an_index_is_made_again_for_another_version(store, monkeypatch):
  url, bucket = store
  walks = []

  def counted(file):
    walks.append(file.path)
    return made(file)

  made = wds.make_index
  monkeypatch.setattr(wds, "make_index", counted)
  for number, name in ((1, "a"), (2, "b")):
    members = [(f"{name}.png", b"123"), (f"{name}.cls", b"0")]
    bucket.put("0.tar", packing.tar_of(members))
    for _ in range(2):
      source = sources.open_source(f"wds:{url}", "train")
      assert source.describe(0) == f"{url}/0.tar/{name}.png"
    assert walks == [f"{url}/0.tar"] * number


def test_records_are_read_by_their_places(store, tmp_path):
  url, bucket = store
  path = str(tmp_path / "x")
  content = [bytes([i]) * (i + 1) for i in range(5)]
  with tf.io.TFRecordWriter(path) as writer:
    for record in content:
      writer.write(record)
  with open(path, "rb") as file:
    bucket.put("x.tfrecord", file.read())
  shard = records.TfRecordShard(f"{url}/x.tfrecord", 5)
  assert shard.read([4, 0, 2]) == [content[4], content[0], content[2]]


def test_what_is_not_there(store):
  url, bucket = store
  bucket.put("x/0.tar.gz", b"")
  scheme = url.partition(":")[0]
  for name in ("bucket/none", "bucket/none/*.tar", "nobody/x"):
    with pytest.raises(DatasetNotPreparedError, match="no such file: '"):
      sources.open_source(f"wds:{scheme}://{name}", "train")
  with pytest.raises(ValueError, match=r"1 compressed ones: '0.tar.gz'"):
    sources.open_source(f"wds:{url}/x", "train")
  bucket.put("0.tar", bytes(10))
  with pytest.raises(ValueError, match=f"{url}/0.tar is not a tar file"):
    sources.open_source(f"wds:{url}/0.tar", "train")
  with pytest.raises(ValueError, match="only wds: and parquet: are read"):
    sources.open_source(f"folder:{url}/x", "train")


def test_a_shard_that_was_replaced_is_an_error(store):
  url, bucket = store
  members = [("a.png", b"123"), ("a.cls", b"0")]
  data = packing.tar_of(members)
  bucket.put("0.tar", data)
  source = sources.open_source(f"wds:{url}", "train")
  bucket.put("0.tar", data[:513])
  with pytest.raises(ValueError, match=r"0.tar is shorter than at the start"):
    source.files[0].read(None)


def one_line(error):
  assert "\n" not in str(error.value) and len(str(error.value)) < 600
  return str(error.value)


def test_no_access(store, monkeypatch):
  """403 for the key of another, and no key at all."""
  url, _ = store
  if url.startswith("gs"):
    pytest.skip("the server has no accounts")
  for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
    monkeypatch.setenv(name, "another")
  stores.forget()
  with pytest.raises(OSError, match=f"{url}/x cannot be read .*Access") as e:
    sources.open_source(f"wds:{url}/x", "train")
  assert "Check the name of the bucket" in one_line(e)
  for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
    monkeypatch.delenv(name)
  monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/no/such/file")
  stores.forget()
  with pytest.raises(OSError, match="AWS_ACCESS_KEY_ID and") as e:
    sources.open_source(f"wds:{url}/x", "train")
  one_line(e)


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_no_server(monkeypatch, scheme, tmp_path):
  pytest.importorskip(PACKAGES[scheme])
  dead = "http://127.0.0.1:9"
  for name, value in fake_s3.SETTINGS.items():
    monkeypatch.setenv(name, value)
  for name in ("AWS_ENDPOINT_URL_S3", *fake_gcs.ENDPOINTS):
    monkeypatch.setenv(name, dead)
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  wait = asyncio.sleep
  monkeypatch.setattr(asyncio, "sleep", lambda *_: wait(0))
  stores.forget()
  with pytest.raises(OSError, match=f"{scheme}://b/x cannot be read") as e:
    sources.open_source(f"wds:{scheme}://b/x", "train")
  one_line(e)
  stores.forget()


def test_only_stores_that_are_known():
  with pytest.raises(ValueError, match=r"local, mounted, or at gs:// or s3://"):
    sources.open_source("wds:http://x/y.tar", "train")


def test_a_missing_package_names_its_extra(monkeypatch):
  for scheme, package in PACKAGES.items():
    monkeypatch.setitem(sys.modules, package, None)
    extra = {"gs": "gcs", "s3": "s3"}[scheme]
    with pytest.raises(ImportError, match=rf'pip install "vitjax\[{extra}\]"'):
      places.of(f"{scheme}://bucket/run")


def test_a_copy_keeps_its_address(store):
  url, bucket = store
  bucket.put("x", b"0123456789")
  with files.open_file(f"{url}/x") as file:
    assert (file.size, file.read(3, 4)) == (10, b"3456")
    with files.as_local(file) as copy:
      assert (copy.path, copy.read(8, 9)) == (f"{url}/x", b"89")
  index = kept_index.load(file, "test", lambda x: {"a": x.read(0, 2)})
  assert bytes(index["a"]) == b"01"
