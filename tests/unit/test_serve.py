"""The server for programs: batches, answers, refusals and figures."""

import asyncio
import base64
import contextlib
import dataclasses
import http.client
import json
import pathlib
import subprocess
import sys
import threading
import time

import cv2
import numpy as np
import pytest

import vitjax
from tests import run_folders
from vitjax.data import limits
from vitjax.predict import prediction
from vitjax.serve import __main__ as command
from vitjax.serve import answers, app, batching

uvicorn = pytest.importorskip("uvicorn", reason="pip install vitjax[serve]")

ROOT = pathlib.Path(__file__).parents[2]
LIMITS = limits.Limits(max_bytes=5000, max_pixels=1000)


def test_sizes_are_few():
  assert batching.sizes_up_to(1) == [1]
  assert batching.sizes_up_to(6) == [1, 2, 4, 6]
  assert batching.sizes_up_to(16) == [1, 2, 4, 8, 16]


class Recorder:
  """Answers with the image itself, and notes what it is given."""

  def __init__(self, seconds=0.0):
    self.compiled, self.batches = [], []
    self._seconds = seconds

  def predict(self, images, size):
    time.sleep(self._seconds)
    self.batches.append((len(images), size))
    if any(x < 0 for x in images):
      raise RuntimeError("negative")
    return list(images)


async def batched(recorder, images, max_batch, max_wait, pause=0.0):
  """The answers to images that arrive with a pause between them."""
  batcher = batching.Batcher(
    recorder.predict,
    recorder.compiled.append,
    max_batch=max_batch,
    max_wait=max_wait,
  )
  running = asyncio.create_task(batcher.run())
  while not batcher.is_ready:
    await asyncio.sleep(0.001)
  tasks = []
  for image in images:
    tasks.append(asyncio.create_task(batcher.answer(image)))
    await asyncio.sleep(pause)
  found = await asyncio.gather(*tasks, return_exceptions=True)
  running.cancel()
  return found


def test_what_waits_goes_through_the_model_together():
  recorder = Recorder(seconds=0.05)
  found = asyncio.run(batched(recorder, range(8), 6, 0.01))
  assert found == list(range(8))  # each got its own
  assert recorder.compiled == [1, 2, 4, 6]
  # Those beyond the largest batch wait for the next, which is padded.
  assert recorder.batches == [(6, 6), (2, 2)]
  three = Recorder()
  assert asyncio.run(batched(three, range(3), 8, 0.05)) == [0, 1, 2]
  assert three.batches == [(3, 4)]


def test_an_image_does_not_wait_longer_than_allowed():
  recorder = Recorder()
  start = time.monotonic()
  asyncio.run(batched(recorder, range(2), 4, 0.02, pause=0.3))
  assert recorder.batches == [(1, 1), (1, 1)]
  # A full batch does not wait at all.
  start = time.monotonic()
  asyncio.run(batched(recorder, range(4), 4, 30))
  assert time.monotonic() - start < 10


def test_a_failure_ends_only_its_batch():
  recorder = Recorder()
  found = asyncio.run(batched(recorder, [1, -1, 2], 1, 0))
  assert found[::2] == [1, 2] and "negative" in str(found[1])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  file = tmp_path_factory.mktemp("model") / "x.npz"
  return vitjax.load(run_folders.make_file(file))


@contextlib.contextmanager
def served(model, wait=True, **options):
  """A service behind a real server; yields it with its port."""
  service = app.Service(model, **options)
  with command.bind("127.0.0.1", 0) as bound:
    config = uvicorn.Config(service.app, log_config=None, access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([bound],))
    thread.start()
    port = bound.getsockname()[1]
    try:
      until(lambda: server.started)
      if wait:
        until(lambda: service.batcher.is_ready)
      yield service, port
    finally:
      server.should_exit = True
      thread.join()


def until(is_true, seconds=120):
  end = time.monotonic() + seconds
  while not is_true():
    assert time.monotonic() < end
    time.sleep(0.005)


def ask(port, path, body=None, method=None, headers=None):
  """(status, JSON or text, headers)"""
  connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
  with contextlib.closing(connection):
    method = method or ("GET" if body is None else "POST")
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    text = response.read().decode()
    is_json = response.headers["Content-Type"] == "application/json"
    found = json.loads(text) if is_json else text
    return response.status, found, response.headers


def as_json(data, **more):
  return json.dumps({"image": base64.b64encode(data).decode(), **more})


def png(height=8, width=8, seed=0):
  shape = (height, width, 3)
  pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
  return cv2.imencode(".png", pixels)[1].tobytes()


def predicted(trained, data, folder, top, **options):
  """What `vitjax predict --json` says about an image."""
  file = folder / "x.png"
  file.write_bytes(data)
  ((_, found),) = prediction.predict(trained, [str(file)], **options)
  names = prediction.names_of(trained, options.get("texts", ()))
  return prediction.to_json(found, names, top)


def assert_same(got, want):
  """The same names in the same order, and the same numbers but for rounding."""
  assert [x["name"] for x in got["top"]] == [x["name"] for x in want["top"]]
  for x, y in zip(got["top"], want["top"], strict=True):
    assert x["label"] == y["label"]
    assert x["probability"] == pytest.approx(y["probability"], abs=1e-5)


@pytest.fixture(scope="module")
def service(trained):
  model = answers.Model(trained, limits=LIMITS)
  with served(model, max_batch=1, top=2, receive_seconds=1) as found:
    yield found


def test_both_forms_say_what_predict_says(service, trained, tmp_path):
  _, port = service
  for seed in range(3):
    data = png(seed=seed)
    want = predicted(trained, data, tmp_path, 2)
    status, got, _ = ask(port, "/predict/image", data)
    assert status == 200
    assert_same(got, want)
    assert ask(port, "/predict", as_json(data))[1] == got
  want = predicted(trained, data, tmp_path, 3)
  assert_same(ask(port, "/predict/image?top=3", data)[1], want)
  assert_same(ask(port, "/predict", as_json(data, top=99))[1], want)


BAD = [
  ("/predict/image", b"", 400, "the body is empty"),
  ("/predict/image", b"no image", 400, "not an image that can be read"),
  ("/predict/image", png()[:60], 400, "PNG"),
  ("/predict/image", bytes(5001), 413, "at most 0.005 MB"),
  ("/predict/image", png(2, 501), 413, "more than 0.001 million pixels"),
  ("/predict/image?top=0", png(), 400, '"top" is 0: give the number'),
  ("/predict/image?top=²", png(), 400, '"top" is "\\u00b2"'),
  ("/predict/image?tpo=1", png(), 400, "Did you mean 'top'?"),
  ("/predict", b"\xff{", 400, "not JSON"),
  ("/predict", b"[" * 4000, 400, "not JSON"),
  ("/predict", b"[]", 400, "is a JSON list"),
  ("/predict", b"{}", 400, '"image" is missing'),
  ("/predict", b'{"image": 3}', 400, '"image" is 3'),
  ("/predict", b'{"image": "a b"}', 400, "not base64"),
  ("/predict", b'{"image": "\xc3\xa9"}', 400, "not base64"),
  ("/predict", as_json(png(), images=1), 400, "Did you mean 'image'?"),
  ("/predict", as_json(png(), top=True), 400, '"top" is true'),
  ("/predict", as_json(b"no image"), 400, "not an image"),
  ("/predict", as_json(bytes(5003)), 413, "larger than 0.005 MB"),
  ("/predict", as_json(bytes(9000)), 413, "at most 0.005 MB"),
  ("/other", b"", 404, "Known: POST /predict, POST /predict/image, GET /hea"),
]


@pytest.mark.parametrize("path, body, status, message", BAD)
def test_refusals_say_what_to_do(service, path, body, status, message):
  _, port = service
  got, found, headers = ask(port, path.replace("²", "%C2%B2"), body)
  assert got == status
  assert message in found["error"] and "\n" not in found["error"]
  assert headers["Content-Type"] == "application/json"


def test_methods_and_slow_bodies(service):
  _, port = service
  status, found, headers = ask(port, "/predict")
  assert status == 405 and headers["Allow"] == "POST"
  assert "GET /predict is not known" in found["error"]
  connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
  with contextlib.closing(connection):
    connection.putrequest("POST", "/predict/image")
    connection.putheader("Content-Length", "1000")
    connection.endheaders(b"some")
    response = connection.getresponse()
    assert response.status == 408
    assert "within 1 s" in json.loads(response.read())["error"]


def test_health_and_figures(service):
  _, port = service
  assert ask(port, "/health/live")[:2] == (200, {"live": True})
  assert ask(port, "/health/ready")[:2] == (200, {"ready": True})

  def figures():
    text = ask(port, "/metrics")[1]
    lines = [x for x in text.splitlines() if not x.startswith("#")]
    return {k: float(v) for k, v in (x.rsplit(" ", 1) for x in lines)}

  before = figures()
  ask(port, "/predict/image", png())
  ask(port, "/predict/image", b"bad")
  ask(port, "/unknown")
  after = figures()
  name = 'vitjax_requests_total{path="/predict/image",status="%d"}'
  for status in (200, 400):
    key = name % status
    assert after[key] == before.get(key, 0) + 1
  assert after['vitjax_requests_total{path="other",status="404"}'] >= 1
  counts = "vitjax_batch_images_sum", "vitjax_batch_seconds_count"
  for key in counts:
    assert after[key] == before[key] + 1
  assert after["vitjax_requests_in_progress"] == 0
  assert after["process_resident_memory_bytes"] > 1e6


class Held:
  """A model whose answers wait until they are let go."""

  limits = LIMITS

  def __init__(self):
    self.go, self.may_compile = threading.Event(), threading.Event()
    self.may_compile.set()

  def compile(self, size):
    assert self.may_compile.wait(120)

  def prepare(self, data):
    return data

  def predict(self, images, size):
    assert self.go.wait(120)
    if b"fail" in images:
      raise RuntimeError("a secret")
    return [
      prediction.Prediction(None, np.zeros(1), is_finite=x != b"nan")
      for x in images
    ]

  def describe(self, found, top):
    return {"top": []}


def test_more_than_the_queue_holds_are_refused_and_none_is_lost():
  held = Held()
  with served(held, max_batch=2, max_queue=3) as (service, port):
    found = []

    def good():
      found.append(ask(port, "/predict/image", b"x")[0])

    threads = [threading.Thread(target=good) for _ in range(3)]
    for thread in threads:
      thread.start()
    until(lambda: service._inside == 3)
    for path, body in (("/predict/image", b"x"), ("/predict", as_json(b"x"))):
      status, said, headers = ask(port, path, body)
      assert status == 503 and headers["Retry-After"] == "1"
      assert "3 images are waiting, and --max_queue=3 may" in said["error"]
    assert ask(port, "/health/live")[0] == 200
    held.go.set()
    for thread in threads:
      thread.join()
    assert found == [200] * 3
    assert ask(port, "/predict/image", b"x")[0] == 200


def test_failures_of_the_model_are_told_to_those_concerned():
  held = Held()
  held.go.set()
  with served(held, max_batch=1) as (_, port):
    status, said, _ = ask(port, "/predict/image", b"fail")
    assert status == 500 and "secret" not in said["error"]
    status, said, _ = ask(port, "/predict/image", b"nan")
    assert status == 500 and "not finite" in said["error"]
    assert ask(port, "/predict/image", b"x")[0] == 200


def test_it_is_ready_when_all_is_compiled():
  held = Held()
  held.may_compile.clear()
  with served(held, wait=False) as (service, port):
    assert ask(port, "/health/live")[0] == 200
    status, said, headers = ask(port, "/health/ready")
    assert (status, said) == (503, {"ready": False})
    assert headers["Retry-After"] == "1"
    assert ask(port, "/predict/image", b"x")[0] == 503
    held.may_compile.set()
    until(lambda: service.batcher.is_ready)
    assert ask(port, "/health/ready")[0] == 200


def test_a_model_that_cannot_be_compiled_is_reported():
  held, failures = Held(), []
  held.compile = lambda size: 1 / 0
  with served(held, wait=False, on_failure=failures.append):
    until(lambda: failures)
  assert isinstance(failures[0], ZeroDivisionError)


def test_those_in_the_queue_are_answered_at_the_end():
  held, found = Held(), []
  thread = threading.Thread(
    target=lambda: found.append(ask(port, "/predict/image", b"x")[0])
  )
  with served(held, max_batch=1) as (service, port):
    thread.start()
    until(lambda: service._inside == 1)
    threading.Timer(0.5, held.go.set).start()
  thread.join()
  assert found == [200]


@pytest.mark.parametrize(
  "metadata",
  [
    pytest.param({"loss": "sigmoid_xent"}, id="multi-label"),
    pytest.param(
      {"loss": "mse", "target_mean": [1, 2, 3], "target_deviation": [1, 5, 9]},
      marks=pytest.mark.slow,  # compiles a model once more
      id="regression",
    ),
  ],
)
def test_other_kinds_of_labels(trained, metadata, tmp_path):
  other = dataclasses.replace(trained, metadata=metadata)
  model = answers.Model(other, limits=LIMITS)
  data = png()
  (found,) = model.predict([model.prepare(data)], 1)
  got = model.describe(found, 2)
  want = predicted(other, data, tmp_path, 2)
  if "top" in want:
    assert_same(got, want)
    assert sum(x["probability"] for x in got["top"]) != pytest.approx(1)
  else:
    assert got["numbers"] == pytest.approx(want["numbers"], rel=1e-5)
    assert list(got["numbers"]) == list(run_folders.CLASSES)


@pytest.mark.slow
def test_two_towers_choose_between_captions(tmp_path):
  trained = vitjax.load(run_folders.make_two_towers(tmp_path / "x.npz"))
  with pytest.raises(ValueError, match=r'no classes.*--texts="a cat'):
    answers.Model(trained, limits=LIMITS)
  texts = ["a cat", "a dog"]
  model = answers.Model(trained, limits=LIMITS, texts=texts)
  data = png()
  (found,) = model.predict([model.prepare(data)], 1)
  want = predicted(trained, data, tmp_path, 2, texts=texts)
  assert_same(model.describe(found, 2), want)


def test_models_that_cannot_be_served(trained):
  with pytest.raises(ValueError, match="texts are for models that read texts"):
    answers.Model(trained, limits=LIMITS, texts=["a"])
  headless = vitjax.models.create(**run_folders.VIT)
  other = dataclasses.replace(trained, model=headless)
  with pytest.raises(ValueError, match="vitjax predict --features"):
    answers.Model(other, limits=LIMITS)
  six = dataclasses.replace(trained, channels=6)
  with pytest.raises(ValueError, match=r"6 channels.*Use vitjax predict"):
    answers.Model(six, limits=LIMITS)


def test_a_port_that_is_taken():
  with command.bind("127.0.0.1", 0) as first:
    first.listen()
    port = first.getsockname()[1]
    with pytest.raises(OSError, match=f"port {port}: .*--port=0"):
      command.bind("127.0.0.1", port)


def test_help_is_quick_and_says_who_can_reach_it():
  found = subprocess.run(
    [sys.executable, "-X", "importtime", "-m", "vitjax.serve", "--help"],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert found.returncode == 0
  for part in ("--max_queue", "--max_wait_ms", "127.0.0.1", "/health/ready"):
    assert part in found.stdout
  loaded = {line.split("|")[-1].strip() for line in found.stderr.splitlines()}
  assert not loaded & {"jax", "tensorflow", "starlette"}
