"""Requests to `vitjax serve` on loopback, against the largest batch.

ViT-Ti/16 at 96 px with random weights, float32; photographs of 640 x 427 as
JPEG. Each server is a process of its own; 32 clients in this process send the
next request when they have their answer. `one_by_one` has --max_batch=1.
`bad` sends as many requests that must be refused among good ones; `lost` counts
good ones without the right answer and bad ones without a refusal.
"""

import contextlib
import http.client
import io
import itertools
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent import futures

import jax
import numpy as np
from PIL import Image
from sklearn import datasets

from scripts.bench import turns

_ROOT = pathlib.Path(__file__).parents[2]
_SIZE = 96
_CLIENTS = 32
_REQUESTS = 64
_BAD = 1000
_BATCHES = {"one_by_one": 1, "batch_4": 4, "batch_16": 16}
_WORDS = 10  # classes of the model


def write_model(folder: pathlib.Path) -> pathlib.Path:
  """Exports ViT-Ti/16 with random weights."""
  from vitjax import models, weights

  options = {"name": "vit", "variant": "Ti/16", "num_classes": _WORDS}
  model = models.create(**options)
  inputs = model.example_inputs(_SIZE)
  shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs)["params"]
  random = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: 0.1 * random.normal(size=x.shape).astype(np.float32), shapes
  )
  metadata = {
    "model": options,
    "image_size": [_SIZE, _SIZE],
    "channels": 3,
    "preprocess": f"decode|resize({_SIZE})|value_range(-1, 1)",
    "class_names": [f"class {i}" for i in range(_WORDS)],
    "loss": "softmax_xent",
  }
  file = folder / "model.npz"
  weights.save(file, params, model, metadata=metadata)
  return file


@contextlib.contextmanager
def started(model: pathlib.Path) -> Iterator[dict[str, int]]:
  """A server for each largest batch, all ready; yields their ports."""
  command = [sys.executable, "-m", "vitjax.serve", f"--model={model}"]
  with contextlib.ExitStack() as stack:
    processes = {}
    for name, size in _BATCHES.items():
      process = subprocess.Popen(
        [*command, "--port=0", f"--max_batch={size}"],
        cwd=_ROOT,
        stderr=subprocess.PIPE,
        text=True,
      )
      stack.callback(process.communicate)
      stack.callback(process.terminate)
      processes[name] = process
    ports = {name: _port(process) for name, process in processes.items()}
    while any(status(port) != 200 for port in ports.values()):
      time.sleep(0.1)
    yield ports


def _port(process: subprocess.Popen) -> int:
  """The port of a server, which it logs when it starts."""
  assert process.stderr is not None
  for line in process.stderr:
    if found := re.search(r"at http://127\.0\.0\.1:(\d+)", line):
      return int(found[1])
  raise RuntimeError("the server did not start.")


def status(port: int) -> int:
  """The status of /health/ready; 0 without a server."""
  with contextlib.suppress(OSError):
    connection = http.client.HTTPConnection("127.0.0.1", port)
    with contextlib.closing(connection):
      connection.request("GET", "/health/ready")
      return connection.getresponse().status
  return 0


def send(port: int, bodies: list[bytes]) -> list[tuple[int, bytes, float]]:
  """(status, body, seconds) of requests by many clients, in their order."""
  found: list = [None] * len(bodies)
  left = itertools.count()

  def work():
    connection = http.client.HTTPConnection("127.0.0.1", port)
    with contextlib.closing(connection):
      while (i := next(left)) < len(bodies):
        start = time.perf_counter()
        connection.request("POST", "/predict/image", bodies[i])
        response = connection.getresponse()
        text = response.read()
        found[i] = response.status, text, time.perf_counter() - start

  with futures.ThreadPoolExecutor(_CLIENTS) as pool:
    for done in [pool.submit(work) for _ in range(_CLIENTS)]:
      done.result()
  return found


def photographs() -> list[bytes]:
  """Eight files that differ."""
  files = []
  for image in datasets.load_sample_images().images:
    for turned in (image, image[::-1], image[:, ::-1], image[::-1, ::-1]):
      file = io.BytesIO()
      Image.fromarray(turned).save(file, "JPEG")
      files.append(file.getvalue())
  return files


def count_lost(port: int, good: list[bytes]) -> int:
  """Wrong answers to as many good requests as bad ones, which are mixed."""
  want = [json.loads(text) for _, text, _ in send(port, good)]
  bad = [b"", b"no image", good[0][:1000], bytes(11_000_000)]
  kinds = [i % len(good) for i in range(_BAD)]
  bodies = []
  for i, kind in enumerate(kinds):
    # Few are large: each of these takes 11 MB of loopback.
    bodies += [good[kind], bad[3] if i % 50 == 0 else bad[i % 3]]
  found = send(port, bodies)
  lost = 0
  for kind, answer, refusal in zip(kinds, found[::2], found[1::2]):
    lost += answer[0] != 200 or not _equal(json.loads(answer[1]), want[kind])
    lost += refusal[0] not in (400, 413) or not json.loads(refusal[1])["error"]
  return lost


def _equal(a: dict, b: dict) -> bool:
  """Whether answers differ by no more than the sizes of their batches do."""
  names = [[x["name"] for x in y["top"]] for y in (a, b)]
  p, q = ([x["probability"] for x in y["top"]] for y in (a, b))
  return names[0] == names[1] and bool(np.allclose(p, q, atol=1e-4))


def measure(repetitions: int) -> list[dict]:
  """Rows: requests per second, milliseconds, times as fast as one by one."""
  files = photographs()
  bodies = [files[i % len(files)] for i in range(_REQUESTS)]
  waits: dict[str, list[list[float]]] = {name: [] for name in _BATCHES}
  with contextlib.ExitStack() as stack:
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    ports = stack.enter_context(started(write_model(pathlib.Path(folder))))

    def call(name):
      found = send(ports[name], bodies)
      if any(code != 200 for code, _, _ in found):
        raise RuntimeError(f"{name}: a request was refused.")
      waits[name].append([1000 * seconds for _, _, seconds in found])

    calls = {name: lambda name=name: call(name) for name in _BATCHES}
    found = turns.seconds(calls, repetitions)
    lost = count_lost(ports["batch_16"], files)
  rows = []
  for name, seconds in found.items():
    last = waits[name][-repetitions:]
    rows.append(
      {
        "benchmark": "serve",
        "contestant": name,
        "requests_per_second": turns.summary(_REQUESTS / np.array(seconds)),
        "p50_ms": turns.summary([np.percentile(x, 50) for x in last]),
        "p99_ms": turns.summary([np.percentile(x, 99) for x in last]),
        "times_one_by_one": turns.ratios(found, name, "one_by_one"),
      }
    )
  rows.append(
    {
      "benchmark": "serve",
      "contestant": f"{_BAD} bad",
      "lost": turns.summary([lost]),
    }
  )
  return rows
