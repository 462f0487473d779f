"""Exported web pages in a real browser, without a network.

They say what the model says in Python, ask for nothing elsewhere, and work
without their server once they were loaded.
"""

import json
import shutil
import urllib.parse

import cv2
import jaxtyping
import numpy as np
import pytest
from PIL import Image, ImageOps

import vitjax
from tests import run_folders
from tests.e2e import browser
from tests.e2e.test_pages import wait_for
from vitjax.demo import static
from vitjax.graphs import onnx_file
from vitjax.web import site

pytestmark = [pytest.mark.slow, pytest.mark.network]  # for the packages
WIDTHS = (browser.DESKTOP, browser.PHONE)
TOLERANCE = 1e-3
NO_NETWORK = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"


@pytest.fixture(scope="module")
def log(tmp_path_factory):
  return tmp_path_factory.mktemp("log") / "net.json"


@pytest.fixture(scope="module")
def window(log):
  flags = (NO_NETWORK, f"--log-net-log={log}")
  with browser.start(*flags) as opened:
    yield opened


def served(trained, folder, **options):
  """The address of a page, in a context."""
  pytest.importorskip("onnx", reason="needs the package onnx")
  out = folder / "site"
  list(site.write(trained, out, title="<b>A title</b>", **options))
  # A port of its own: the browser remembers what was on another.
  return static.serve(folder / "site", host="127.0.0.1", port=0)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
  file = tmp_path_factory.mktemp("classifier") / "x.npz"
  return vitjax.load(run_folders.make_file(file))


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
  """A photograph that lies on its side, as its EXIF data say."""
  file = tmp_path_factory.mktemp("picture") / "<i>x.png"
  pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
  exif = Image.Exif()
  exif[0x0112] = 6
  Image.fromarray(cv2.blur(pixels, (5, 5))).save(file, exif=exif)
  return file


def is_ready(window):
  assert not shown_error(window)
  return window.driver.execute_script(
    "return document.body.dataset.ready !== undefined"
  )


def shown_error(window):
  return window.driver.execute_script(
    "return document.getElementById('error').textContent"
  )


def scores(window):
  assert not shown_error(window)
  rows = window.driver.execute_script(
    "return [...document.querySelectorAll('[data-score]')].map(row => ["
    "(row.querySelector('input')?.value ?? row.querySelector('span').innerText)"
    ", Number(row.dataset.score)])"
  )
  return dict(map(tuple, rows))


def give(window, file):
  wait_for(lambda: is_ready(window))
  window.driver.find_element("css selector", "#file").send_keys(str(file))
  return wait_for(lambda: scores(window))


def complaints(window):
  # The machine of a test may have no GPU.
  return [x for x in window.errors() if "No available adapters" not in x]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def page(classifier, folder):
  with served(classifier, folder) as address:
    yield address


@pytest.mark.parametrize("width", WIDTHS)
def test_a_classifier_says_what_it_says_in_python(
  window, page, classifier, picture, width
):
  window.open(page, width)
  got = give(window, picture)
  want = dict(classifier.classify(str(picture)))
  assert list(got) == list(want)
  assert got == pytest.approx(want, abs=TOLERANCE)
  assert window.overflow() <= 0
  assert not complaints(window)
  run = window.driver.execute_script
  assert run("return crossOriginIsolated")
  assert run("return document.getElementById('overlay').width") > 0
  assert "<b>A title</b>" in window.text()


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_smaller_numbers_say_what_the_file_says(
  window, classifier, picture, tmp_path, precision
):
  with served(classifier, tmp_path, precision=precision) as address:
    window.open(address, browser.DESKTOP)
    got = give(window, picture)
    assert not complaints(window)
  folder = tmp_path / "site"
  about = json.loads((folder / "site.json").read_text())
  pieces = [folder / name for name, _ in about["image"]["pieces"]]
  (tmp_path / "x.onnx").write_bytes(b"".join(x.read_bytes() for x in pieces))
  pixels = np.asarray(ImageOps.exif_transpose(Image.open(picture)))
  logits = onnx_file.Session(tmp_path / "x.onnx")(pixels[None])
  want = dict(zip(about["labels"], classifier.probabilities(logits)[0]))
  assert got == pytest.approx(want, abs=1e-2)


def test_what_is_no_image_is_said(window, page, tmp_path):
  file = tmp_path / "bad.png"
  file.write_bytes(b"nothing to see")
  window.open(page, browser.PHONE)
  wait_for(lambda: is_ready(window))
  window.driver.find_element("css selector", "#file").send_keys(str(file))
  said = wait_for(lambda: shown_error(window))
  assert said == "bad.png is not an image that this browser can read."


def test_a_page_works_without_its_server(
  window, page, folder, picture, tmp_path
):
  copy = shutil.copytree(folder / "site", tmp_path / "site")
  with static.serve(copy, host="127.0.0.1", port=0) as address:
    window.open(address, browser.PHONE)
    want = give(window, picture)
  window.driver.get("about:blank")
  window.driver.get(address)
  assert give(window, picture) == want


def test_a_new_page_takes_the_place_of_the_old(window, page, folder, tmp_path):
  copy = shutil.copytree(folder / "site", tmp_path / "site")
  with static.serve(copy, host="127.0.0.1", port=0) as address:
    window.open(address, browser.PHONE)
    wait_for(lambda: is_ready(window))
    about = json.loads((copy / "site.json").read_text())
    (copy / "site.json").write_text(json.dumps(about | {"title": "Second"}))
    (copy / "files.js").unlink()
    site.write_list(copy)
    window.driver.get(address)
    wait_for(lambda: "Second" in window.text() and is_ready(window))


@pytest.mark.parametrize("clip", [False, True], ids=["LiT", "CLIP"])
def test_captions_are_compared_while_they_are_typed(
  window, picture, tmp_path, clip, monkeypatch
):
  if clip:
    pytest.importorskip("ftfy")
    # It cannot broadcast a symbolic batch.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
  file = run_folders.make_two_towers(tmp_path / "x.npz", clip=clip)
  trained = vitjax.load(file)
  with served(trained, tmp_path) as address:
    window.open(address, browser.PHONE)
    give(window, picture)
    field = window.driver.find_element("css selector", "#list input")
    field.clear()
    field.send_keys("A dog")
    captions = list(scores(window))
    assert captions[0] == "A dog"
    image = trained.prepare(str(picture))[None]
    want = trained.probabilities(trained.similarity(image, captions))[0]
    # Until the last letter, the scores are those of less.
    wait_for(
      lambda: np.allclose([*scores(window).values()], want, atol=TOLERANCE)
    )
    assert len({*want}) > 1
    assert window.overflow() <= 0
    assert not complaints(window)


def test_nothing_is_asked_for_elsewhere(window, page, picture, log):
  window.open(page, browser.DESKTOP)
  give(window, picture)
  window.driver.quit()
  # The log of the whole browser, workers included; it asks for updates itself.
  requests = [
    x.get("params", {}) for x in json.loads(log.read_text())["events"]
  ]
  asked = {x["url"] for x in requests if is_local(x.get("initiator", ""))}
  assert {f"{page}service_worker.js", f"{page}worker.js"} <= asked
  assert any(x.endswith(".wasm") for x in asked)
  assert [x for x in asked if not is_local(x)] == []


def is_local(address):
  return urllib.parse.urlsplit(address).hostname == "127.0.0.1"
