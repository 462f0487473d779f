"""`vitjax serve` as a process: good and bad requests, and its end."""

import contextlib
import http.client
import itertools
import json
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent import futures

import cv2
import numpy as np
import pytest

from tests import run_folders

DOCS = pathlib.Path(__file__).parents[2] / "docs"
pytestmark = pytest.mark.slow
pytest.importorskip("uvicorn", reason="pip install vitjax[serve]")


@contextlib.contextmanager
def started(model, *flags):
  """A process that is ready, and its port."""
  process = subprocess.Popen(
    [
      *(sys.executable, "-m", "vitjax.serve", f"--model={model}", "--port=0"),
      *flags,
    ],
    stderr=subprocess.PIPE,
    text=True,
  )
  try:
    line = next(x for x in process.stderr if "Serving" in x)
    port = int(re.search(r"http://127\.0\.0\.1:(\d+);", line)[1])
    while ask(port, "/health/ready")[0] != 200:
      assert process.poll() is None, process.stderr.read()
      time.sleep(0.1)
    yield process, port
  finally:
    process.kill()
    process.wait()
    process.stderr.close()


def ask(port, path, body=None):
  connection = http.client.HTTPConnection("127.0.0.1", port)
  with contextlib.closing(connection):
    try:
      connection.request("GET" if body is None else "POST", path, body)
      response = connection.getresponse()
      return response.status, response.read().decode()
    except ConnectionRefusedError:
      return 0, ""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
  return run_folders.make_file(tmp_path_factory.mktemp("model") / "x.npz")


@pytest.fixture(scope="module")
def images():
  random = np.random.default_rng(0)
  pixels = random.integers(0, 256, (8, 20, 20, 3), np.uint8)
  return [cv2.imencode(".png", x)[1].tobytes() for x in pixels]


def top(text):
  return [(x["name"], x["probability"]) for x in json.loads(text)["top"]]


def test_answers_among_bad_requests_are_those_of_the_command(
  model, images, tmp_path
):
  for i, data in enumerate(images):
    (tmp_path / f"{i}.png").write_bytes(data)
  done = subprocess.run(
    [
      *(sys.executable, "-m", "vitjax.predict", f"--model={model}", "--json"),
      str(tmp_path),
    ],
    capture_output=True,
    text=True,
    check=True,
  )
  want = [top(line) for line in done.stdout.splitlines()]
  bad = itertools.cycle((b"", b"no image", images[0][:50], bytes(30_000)))
  with started(model, "--max_batch=4", "--max_mb=0.02") as (_, port):
    with futures.ThreadPoolExecutor(8) as pool:
      good, refused = [], []
      for i in range(100):
        body = images[i % len(images)]
        good.append(pool.submit(ask, port, "/predict/image", body))
        refused += [
          pool.submit(ask, port, "/predict/image", next(bad)) for _ in range(2)
        ]
    for i, future in enumerate(good):
      status, text = future.result()
      assert status == 200
      for got, (name, p) in zip(top(text), want[i % len(images)], strict=True):
        assert got == (name, pytest.approx(p, abs=1e-4))
    for future in refused:
      status, text = future.result()
      assert status in (400, 413) and json.loads(text)["error"]


def test_the_documented_requests(model, images, tmp_path):
  if not shutil.which("curl"):
    pytest.skip("needs the program curl")
  text = (DOCS / "serve.md").read_text()
  section = text.partition("## Ask it")[2]
  shell, python = (
    re.search(rf"```{kind}\n(.*?)```", section, re.S)[1]
    for kind in ("sh", "python")
  )
  (tmp_path / "photo.jpg").write_bytes(images[0])
  lines = []
  with started(model) as (_, port):
    for command in (["sh", "-c", shell], [sys.executable, "-c", python]):
      command[-1] = command[-1].replace(":8000", f":{port}")
      done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=True
      )
      lines.append(done.stdout)
  found = json.loads(lines[0])["top"]
  assert len(found) == 2
  want = [f"{x['probability']:.3f} {x['name']}" for x in found]
  assert lines[1].splitlines() == want


def test_sigterm_lets_those_inside_be_answered(model, images):
  flags = ("--max_batch=64", "--max_wait_ms=10000")
  with started(model, *flags) as (process, port):
    found = []

    def send(data):
      found.append(ask(port, "/predict/image", data))

    threads = [threading.Thread(target=send, args=(x,)) for x in images]
    for thread in threads:
      thread.start()
    while "vitjax_requests_in_progress 8.0" not in ask(port, "/metrics")[1]:
      assert not found  # else the machine is too slow for this test
      time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    for thread in threads:
      thread.join()
    assert process.wait(600) == 0
    assert [status for status, _ in found] == [200] * 8
    assert ask(port, "/health/live")[0] == 0
    assert "Traceback" not in process.stderr.read()
