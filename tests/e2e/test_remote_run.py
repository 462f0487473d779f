"""Whole runs at gs:// and s3://, on servers of this machine."""

import io
import json
import signal

import numpy as np
import pytest

from tests import stores
from tests.e2e import launch


@pytest.fixture(params=stores.PACKAGES)
def scheme(request):
  pytest.importorskip(stores.PACKAGES[request.param])
  return request.param


@pytest.fixture
def workdir(scheme):
  return f"{scheme}://bucket/runs/mine"


@pytest.fixture
def bucket(scheme, monkeypatch):
  with stores.serve(scheme, monkeypatch) as bucket:
    yield bucket


def steps(bucket) -> list[int]:
  """The complete checkpoints."""
  parts = [x.split("/") for x in list(bucket.objects)]
  # Orbax writes the first to gs://; the second is the last that is sent to s3.
  ends = (["commit_success.txt"], ["info", "metadata"])
  is_s3 = not any(x[4:] == ends[0] for x in parts)
  return sorted(int(x[3]) for x in parts if x[4:] == ends[is_s3])


def assert_same(bucket, expected):
  """The record and the weights are equal to the last bit."""
  files = bucket.files("runs/mine/")
  assert files["runs/mine/metrics.jsonl"] == launch.record(expected)
  params = io.BytesIO(files["runs/mine/params.npz"])
  with (
    np.load(params) as given,
    np.load(expected / "params.npz") as wanted,
  ):
    assert sorted(given) == sorted(wanted)
    for name in wanted:
      assert given[name].tobytes() == wanted[name].tobytes(), name


@pytest.mark.slow
@pytest.mark.parametrize("data_at", stores.PACKAGES)
def test_killed_on_remote_data_is_the_same_to_the_bit(
  data_at, packed, shared_folder, cache, tmp_path, monkeypatch
):
  """Tar shards in one store, and the run folder at s3://."""
  for package in stores.PACKAGES.values():
    pytest.importorskip(package)
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "indexes"))
  workdir, whole = "s3://bucket/runs/mine", tmp_path / "whole"

  def command(folder, data):
    options = ("total_steps=45", "checkpoint.every_steps=4")
    return launch.on_folder(folder, data, *options)

  launch.run(*command(whole, *packed["wds"]), cache=cache).assert_done()
  with (
    stores.serve("gs", monkeypatch) as google,
    stores.serve("s3", monkeypatch) as amazon,
  ):
    shards = {"gs": google, "s3": amazon}[data_at]
    for path in (shared_folder / "tars").rglob("*.tar"):
      shards.put(f"tars/{path.name}", path.read_bytes())
    remote = command(workdir, f"wds:{data_at}://bucket/tars")
    with launch.Process(*remote, cache=cache) as process:
      process.wait_until(lambda: max(steps(amazon), default=0) >= 12)
      process.send(signal.SIGKILL)
      assert process.finish().code == -signal.SIGKILL
    end = launch.run(*remote, cache=cache).assert_done()
    assert "Resuming after step" in end.text
    assert_same(amazon, whole)
    assert steps(amazon) == launch.saved_steps(whole)


@pytest.mark.slow
def test_a_run_is_killed_resumed_and_read(
  bucket, workdir, straight, cache, tmp_path
):
  command = launch.tiny(workdir)
  with launch.Process(*command, cache=cache) as process:
    # A later one may have taken the place of the second.
    process.wait_until(lambda: max(steps(bucket), default=0) >= 140)
    process.send(signal.SIGKILL)
    assert process.finish().code == -signal.SIGKILL
  resumed = launch.run(*command, cache=cache).assert_done()
  assert "Resuming after step" in resumed.text
  files = bucket.files("runs/mine/")
  assert_same(bucket, straight)
  assert steps(bucket) == launch.saved_steps(straight)
  names = {name.removeprefix("runs/mine/").split("/")[0] for name in files}
  assert not {"lock.json", "error.txt"} & names
  assert {"tensorboard", "timing.jsonl", "model.json", "config.json"} <= names

  launch.run(
    "vitjax.evaluate", f"--model={workdir}", "--json", cache=cache
  ).assert_done()
  page = tmp_path / "page.html"
  launch.run(
    *("vitjax.report", workdir, f"--out={page}", "--examples=0"), cache=cache
  ).assert_done()
  assert "mine" in page.read_text()

  # Its weights begin another run, which is local.
  launch.run(
    *launch.tiny(tmp_path / "next", f"init.weights={workdir}", "total_steps=2"),
    cache=cache,
  ).assert_done()


@pytest.mark.slow
def test_sigterm_saves_the_step(bucket, workdir, cache):
  with launch.Process(*launch.tiny(workdir), cache=cache) as process:
    process.wait_until(lambda: steps(bucket))
    process.send(signal.SIGTERM)
    finished = process.finish()
  assert finished.code == launch.PREEMPTED, finished.text
  rows = bucket.files()["runs/mine/metrics.jsonl"].splitlines()
  saved = max(steps(bucket))
  assert saved - 3 < json.loads(rows[-1])["step"] <= saved
  assert "runs/mine/lock.json" not in bucket.files()
