"""Report and demo in a real browser: what people see, and what they cannot.

No page may ask for anything elsewhere, complain in the console, or be wider
than a phone.
"""

import contextlib
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import cv2
import numpy as np
import pytest

from tests import run_folders
from tests.e2e import browser, launch

pytestmark = pytest.mark.slow
WIDTHS = (browser.DESKTOP, browser.PHONE)


@pytest.fixture(scope="module")
def window():
  with browser.start() as opened:
    yield opened


@pytest.fixture(scope="module")
def page(tmp_path_factory, cache):
  """A report of two runs with difficult names."""
  folder = tmp_path_factory.mktemp("runs")
  images = run_folders.make_images(folder / "images")
  runs = [
    run_folders.make(folder / name, images, losses=losses)
    for name, losses in (
      ("<b>one", (3, 2, 1)),
      ("a_run_whose_name_is_far_too_long_for_a_phone_" * 2, (3, 2.5, 2)),
    )
  ]
  page = folder / "report.html"
  names = map(str, runs)
  launch.run(
    "vitjax.report", *names, f"--out={page}", cache=cache
  ).assert_done()
  return page


def light(color):
  """From "rgb(0, 0, 0)" to 0, and white to 765."""
  return sum(int(x) for x in re.findall(r"\d+", color)[:3])


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dark", [False, True])
def test_report(window, page, width, dark):
  window.open(page.as_uri(), width, dark=dark)
  assert window.overflow() <= 0
  assert not window.errors()
  assert window.requests() == [page.as_uri()]
  run = window.driver.execute_script
  assert run("return document.querySelectorAll('svg').length") > 10
  loaded = (
    "return [...document.images].every(i => i.complete && i.naturalWidth)"
  )
  assert run(loaded)
  sizes = run(
    "return [...document.querySelectorAll('.pictures svg, .pictures img')]"
    ".filter(e => !e.closest('details'))"
    ".map(e => e.getBoundingClientRect()).map(r => [r.left, r.right])"
  )
  assert all(0 <= left < right <= width for left, right in sizes)
  back = light(run("return getComputedStyle(document.body).backgroundColor"))
  letters = "document.querySelector('svg text')"
  text = light(run(f"return getComputedStyle({letters}).fill"))
  assert (back < text) == dark and abs(back - text) > 300


@contextlib.contextmanager
def serving(model, *flags):
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
  command = [sys.executable, "-m", "vitjax.demo", f"--model={model}"]
  process = subprocess.Popen(
    [*command, f"--port={port}", *flags],
    cwd=launch.ROOT,
    stderr=subprocess.PIPE,
    text=True,
  )
  try:
    said = []
    for line in process.stderr:
      said.append(line)
      if "Serving" in line:
        break
    assert process.poll() is None and said, "".join(said)
    yield f"http://127.0.0.1:{port}/", process
  finally:
    process.terminate()
    process.wait(60)
    process.stderr.close()


def wait_for(what, seconds=60):
  """What it returns, once it is true."""
  end = time.monotonic() + seconds
  while not (found := what()):
    assert time.monotonic() < end, "nothing came"
    time.sleep(0.1)
  return found


def upload(window, file):
  field = wait_for(
    lambda: window.driver.find_elements("css selector", "input[type=file]")
  )
  field[0].send_keys(str(file))


def shows(window, texts):
  return all(text in window.text() for text in texts)


def pictures(window):
  return window.driver.find_elements("css selector", "img[src*='/file=']")


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
  """Address of the demo of a classifier that reads files of up to 10 kB."""
  pytest.importorskip("gradio", reason="needs the package gradio")
  model = run_folders.make_file(tmp_path_factory.mktemp("demo") / "x.npz")
  with serving(model, "--max_mb=0.01") as (address, process):
    yield address
    assert process.poll() is None


@pytest.mark.parametrize("width", WIDTHS)
def test_demo_of_a_classifier(window, demo, width, tmp_path):
  good, bad = tmp_path / "<i>good.png", tmp_path / "bad.png"
  pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
  cv2.imwrite(str(good), pixels)
  bad.write_bytes(b"nothing to see")
  for file in (good, bad):
    window.open(demo, width)
    # Before an upload the page is as wide as after it.
    field = wait_for(
      lambda: window.driver.find_elements("css selector", ".block button")
    )
    assert field[0].size["width"] > 0.35 * width
    upload(window, file)
    if file == good:
      wait_for(lambda: shows(window, run_folders.CLASSES))
      wait_for(lambda: len(pictures(window)) == 2)
    else:
      wait_for(lambda: "not an image that can be read" in window.text())
    assert window.overflow() <= 0
    errors = window.errors()  # Gradio itself warns of one of its methods
    assert not [e for e in errors if "Method not implemented" not in e]
    assert not [x for x in window.requests() if not x.startswith(demo)]


def test_demo_of_two_towers(window, tmp_path):
  pytest.importorskip("gradio", reason="needs the package gradio")
  model = run_folders.make_two_towers(tmp_path / "x.npz")
  file = tmp_path / "x.png"
  cv2.imwrite(str(file), np.full((9, 9, 3), 99, np.uint8))
  with serving(model) as (address, _):
    window.open(address, browser.PHONE)
    upload(window, file)
    wait_for(
      lambda: "a photo of a dog" in window.text() and "%" in window.text()
    )
    area = window.driver.find_element("css selector", "textarea")
    area.clear()
    area.send_keys("<b>dog</b>\na cat")
    window.driver.find_element("css selector", "button.primary").click()
    wait_for(lambda: "<b>dog</b>" in window.text())
    assert window.overflow() <= 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_demo_removes_uploads_when_it_is_ended(tmp_path, monkeypatch, number):
  pytest.importorskip("gradio", reason="needs the package gradio")
  model = run_folders.make_file(tmp_path / "x.npz")
  temporary = tmp_path / "temporary"
  temporary.mkdir()
  monkeypatch.setenv("TMPDIR", str(temporary))
  with serving(model) as (address, process):
    urllib.request.urlopen(upload_request(address, bytes(1000))).close()
    (file,) = temporary.glob("vitjax_demo_*/*/x.png")
    process.send_signal(number)
    assert process.wait(60) == 0
  assert not file.exists()
  assert not list(temporary.glob("vitjax_demo_*"))


def upload_request(address, content):
  return urllib.request.Request(
    f"{address}gradio_api/upload",
    b"--x\r\nContent-Disposition: form-data; name=files; filename=x.png\r\n"
    b"\r\n" + content + b"\r\n--x--\r\n",
    {"Content-Type": "multipart/form-data; boundary=x"},
  )


def test_demo_is_for_this_machine_and_has_limits(demo, tmp_path):
  port = demo.rstrip("/").rpartition(":")[2]
  listening = subprocess.run(["ss", "-ltnH"], capture_output=True, text=True)
  (line,) = [x for x in listening.stdout.splitlines() if f":{port} " in x]
  assert f"127.0.0.1:{port}" in line
  request = upload_request(demo, bytes(100_000))
  with pytest.raises(urllib.error.HTTPError) as error:
    urllib.request.urlopen(request)
  assert error.value.code == 413
  error.value.close()
  model = run_folders.make_file(tmp_path / "x.npz")
  busy = subprocess.run(
    [sys.executable, "-m", "vitjax.demo", f"--model={model}"]
    + [f"--port={port}"],
    cwd=launch.ROOT,
    capture_output=True,
    text=True,
  )
  assert busy.returncode == 1
  assert "vitjax.demo: " in busy.stderr
  assert "Traceback" not in busy.stderr
