"""A whole run at gs://, on a server of this machine."""

import json
import signal

import numpy as np
import pytest

from tests import fake_gcs
from tests.e2e import launch

pytest.importorskip("gcsfs")

WORKDIR = "gs://bucket/runs/mine"


@pytest.fixture
def bucket(monkeypatch):
  with fake_gcs.serve() as (address, bucket):
    for name in fake_gcs.ENDPOINTS:
      monkeypatch.setenv(name, address)
    yield bucket


def steps(bucket) -> list[int]:
  """The complete checkpoints."""
  done = "/commit_success.txt"
  parts = [x.split("/") for x in list(bucket.objects) if x.endswith(done)]
  return sorted(int(x[3]) for x in parts if len(x) == 5)


@pytest.mark.slow
def test_a_run_is_killed_resumed_and_read(bucket, straight, cache, tmp_path):
  command = launch.tiny(WORKDIR)
  with launch.Process(*command, cache=cache) as process:
    # A later one may have taken the place of the second.
    process.wait_until(lambda: max(steps(bucket), default=0) >= 140)
    process.send(signal.SIGKILL)
    assert process.finish().code == -signal.SIGKILL
  resumed = launch.run(*command, cache=cache).assert_done()
  assert "Resuming after step" in resumed.text
  files = bucket.files("runs/mine/")
  assert files["runs/mine/metrics.jsonl"] == launch.record(straight)
  (tmp_path / "params.npz").write_bytes(files["runs/mine/params.npz"])
  with (
    np.load(tmp_path / "params.npz") as given,
    np.load(straight / "params.npz") as wanted,
  ):
    assert sorted(given) == sorted(wanted)
    for name in wanted:
      assert given[name].tobytes() == wanted[name].tobytes(), name
  assert steps(bucket) == launch.saved_steps(straight)
  names = {name.removeprefix("runs/mine/").split("/")[0] for name in files}
  assert not {"lock.json", "error.txt"} & names
  assert {"tensorboard", "timing.jsonl", "model.json", "config.json"} <= names

  launch.run(
    "vitjax.evaluate", f"--model={WORKDIR}", "--json", cache=cache
  ).assert_done()
  page = tmp_path / "page.html"
  launch.run(
    *("vitjax.report", WORKDIR, f"--out={page}", "--examples=0"), cache=cache
  ).assert_done()
  assert "mine" in page.read_text()

  # Its weights begin another run, which is local.
  launch.run(
    *launch.tiny(tmp_path / "next", f"init.weights={WORKDIR}", "total_steps=2"),
    cache=cache,
  ).assert_done()


@pytest.mark.slow
def test_sigterm_saves_the_step(bucket, cache):
  with launch.Process(*launch.tiny(WORKDIR), cache=cache) as process:
    process.wait_until(lambda: steps(bucket))
    process.send(signal.SIGTERM)
    finished = process.finish()
  assert finished.code == launch.PREEMPTED, finished.text
  rows = bucket.files()["runs/mine/metrics.jsonl"].splitlines()
  saved = max(steps(bucket))
  assert saved - 3 < json.loads(rows[-1])["step"] <= saved
  assert "runs/mine/lock.json" not in bucket.files()
