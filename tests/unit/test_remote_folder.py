"""Run folders in an object store: what differs from a local folder."""

import json
import pathlib
import threading
import time

import jax
import jax.numpy as jnp
import pytest

from tests import stores
from vitjax import main
from vitjax.checkpoint.checkpointer import Checkpointer, load_params
from vitjax.config import places
from vitjax.run_folder import files, lock, reader
from vitjax.run_folder.mirror import Mirror
from vitjax.run_folder.writer import MetricsWriter


@pytest.fixture(params=stores.PACKAGES)
def root(request):
  """gs://bucket or s3://bucket."""
  pytest.importorskip(stores.PACKAGES[request.param])
  return f"{request.param}://bucket"


@pytest.fixture
def bucket(root, monkeypatch):
  """The bucket there, on this machine."""
  with stores.serve(root.partition(":")[0], monkeypatch) as bucket:
    yield bucket


@pytest.fixture(autouse=True)
def quick(monkeypatch):
  monkeypatch.setattr(lock, "_BEAT_SECONDS", 0.1)
  monkeypatch.setattr(lock, "_SILENT_SECONDS", 1)
  monkeypatch.setattr(lock, "_POLL_SECONDS", 0.05)


ELSEWHERE = {
  "host": "other",
  "process": 1,
  "since": "2026-01-02 03:04:05+00:00",
  "machine": "another",
}


def test_a_second_run_is_told_who_has_the_folder(root, bucket):
  workdir = places.of(f"{root}/run")
  with lock.held(workdir) as check:
    with pytest.raises(lock.RunFolderInUseError, match=f"{root}/run is in"):
      with lock.held(workdir):
        pass
    check()
    assert "run/lock.json" in bucket.files()
    time.sleep(0.5)
    assert len(bucket.files("run/lock.json.")) == 1  # its sign of life
  assert not bucket.files()


def test_a_silent_holder_is_replaced_and_a_live_one_is_not(root, bucket):
  workdir = places.of(f"{root}/run")
  bucket.put("run/lock.json", json.dumps(ELSEWHERE).encode())
  with lock.held(workdir) as check:
    bucket.put("run/lock.json", json.dumps(ELSEWHERE).encode())
    with pytest.raises(lock.RunFolderInUseError, match="was taken over by"):
      check()
  theirs = lock.open_file(workdir / "lock.json")
  ended = threading.Event()

  def renew():
    while not ended.wait(0.1):
      theirs.renew()

  thread = threading.Thread(target=renew)
  thread.start()
  try:
    with pytest.raises(lock.RunFolderInUseError, match="process 1 on other"):
      with lock.held(workdir):
        pass
  finally:
    ended.set()
    thread.join()


def test_of_many_that_start_at_once_one_gets_the_folder(root, bucket):
  workdir = places.of(f"{root}/run")
  bucket.put("run/lock.json", json.dumps(ELSEWHERE).encode())
  begun, results = threading.Barrier(4), []

  def start():
    begun.wait()
    try:
      with lock.held(workdir) as check:
        time.sleep(1)
        check()
        results.append("held")
    except lock.RunFolderInUseError:
      results.append("refused")

  threads = [threading.Thread(target=start) for _ in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert sorted(results) == ["held", "refused", "refused", "refused"]
  assert not bucket.files()


def test_a_look_at_the_lock_is_trusted_for_seconds(root, bucket):
  workdir = places.of(f"{root}/run")
  with lock.held(workdir) as check:
    check()
    bucket.put("run/lock.json", json.dumps(ELSEWHERE).encode())
    check(now=False)  # at each step; saves look themselves
    with pytest.raises(lock.RunFolderInUseError):
      check()


def write(mirror, steps, start_step=0):
  with MetricsWriter(
    mirror.folder, start_step=start_step, trackers={"csv": {}}
  ) as writer:
    for step in steps:
      writer.write(step, {"a": step})


def test_a_resumed_record_has_the_same_bytes(root, bucket, tmp_path):
  workdir = places.of(f"{root}/runs/mine")
  killed = Mirror(workdir)
  write(killed, range(1, 6))
  killed.send()
  write(killed, range(6, 8), start_step=5)  # never sent
  resumed = Mirror(workdir)
  write(resumed, range(4, 11), start_step=3)
  resumed.close()
  assert not resumed.folder.exists()
  write(Mirror(tmp_path), range(1, 11))
  for name in ("metrics.jsonl", "metrics.csv"):
    expected = (tmp_path / name).read_bytes()
    assert bucket.files()[f"runs/mine/{name}"] == expected
  assert len(reader.read_metrics(f"{root}/runs/mine")) == 10


def test_only_changed_and_complete_files_are_sent(root, bucket):
  mirror = Mirror(places.of(f"{root}/run"))
  (mirror.folder / "profile").mkdir()
  (mirror.folder / "profile" / "trace").write_text("1")
  (mirror.folder / ".half").write_text("1")
  (mirror.folder / "link").symlink_to(mirror.folder / "profile" / "trace")
  mirror.send()
  assert bucket.files() == {"run/profile/trace": b"1"}
  before = bucket.objects["run/profile/trace"]
  mirror.send()
  assert bucket.objects["run/profile/trace"] == before
  (mirror.folder / "profile" / "trace").write_text("22")
  mirror.close()
  assert bucket.files() == {"run/profile/trace": b"22"}


def test_a_mirror_of_a_local_folder_is_the_folder(tmp_path):
  mirror = Mirror(tmp_path)
  assert mirror.folder == tmp_path
  mirror.send()
  mirror.close()
  assert tmp_path.is_dir()


def test_json_files_are_objects(root, bucket):
  files.write_json(places.of(f"{root}/run") / "x.json", {"a": 1})
  assert reader.read_json(f"{root}/run/x.json") == {"a": 1}
  with pytest.raises(FileNotFoundError):
    reader.read_json(f"{root}/run/y.json")


def test_a_workdir_that_cannot_be_written(root, bucket):
  main.check_writable(places.of(f"{root}/run"))
  assert not bucket.files()
  nobody = root.replace("bucket", "nobody/x")
  with pytest.raises(OSError, match=f"--workdir={nobody}: cannot write"):
    main.check_writable(places.of(nobody))


def test_other_stores_are_refused_with_what_to_do():
  with pytest.raises(ValueError, match=r"at gs:// or s3://\. Mount the"):
    places.of("http://x/run")
  assert places.of("runs/mine") == pathlib.Path("runs/mine")


@pytest.mark.slow
def test_a_damaged_checkpoint_is_set_aside(root, bucket):
  state = {"params": {"a": jnp.arange(100.0)}}
  with Checkpointer(f"{root}/run/checkpoints", keep_latest=2) as saving:
    for step in (1, 2, 3):
      saving.save(step, state, info={"at": step})
  names = [name for name in bucket.files() if "/3/params/" in name]
  for name in names:
    if "/d/" in name:
      bucket.put(name, bucket.objects[name][0][:-1] + b"?")
  with Checkpointer(f"{root}/run/checkpoints", keep_latest=2) as resumed:
    step, restored, info = resumed.restore(state)
    assert (step, info) == (2, {"at": 2})
    assert restored["params"]["a"].tolist() == state["params"]["a"].tolist()
    assert resumed.steps == [2]
    resumed.save(3, state)
  assert load_params(f"{root}/run/checkpoints")[0] == 3
  kept = {name.split("/")[2] for name in bucket.files("run/checkpoints/")}
  assert kept == {"2", "3", "3.damaged"}


def test_several_processes_at_s3_are_refused(monkeypatch):
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  pytest.importorskip("s3fs")
  with pytest.raises(ValueError, match="a run of 2 processes cannot write"):
    Checkpointer("s3://bucket/run/checkpoints")
