"""What the tests of whole runs share, also between processes of pytest."""

import contextlib
import fcntl
import os
import signal

import numpy as np
import pytest
from PIL import Image

from tests import packing
from tests.e2e import launch


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory):
  """One folder for all workers of pytest-xdist."""
  folder = tmp_path_factory.getbasetemp()
  if "PYTEST_XDIST_WORKER" in os.environ:
    folder = folder.parent
  folder = folder / "shared"
  folder.mkdir(exist_ok=True)
  return folder


@pytest.fixture(scope="session")
def cache(shared_folder):
  """Compiled programs; what is in it was put there by the shared runs."""
  return shared_folder / "compiled"


@contextlib.contextmanager
def made_once(folder):
  """Yields whether the folder is still to be made; one process makes it."""
  done = folder.with_suffix(".done")
  with open(folder.with_suffix(".lock"), "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield not done.exists()
    done.touch()


@pytest.fixture(scope="session")
def straight(shared_folder, cache):
  """A run that nothing happened to. Copy it before writing to it."""
  workdir = shared_folder / "straight"
  with made_once(workdir) as missing:
    if missing:
      launch.run(*launch.tiny(workdir), cache=cache).assert_done()
  return workdir


@pytest.fixture(scope="session")
def stopped(shared_folder, cache, straight):
  """(run that a SIGTERM stopped at about step 100, what it said last)."""
  workdir = shared_folder / "stopped"
  with made_once(workdir) as missing:
    if missing:
      with launch.Process(*launch.tiny(workdir), cache=cache) as process:
        process.wait_for_step(workdir, 100)
        process.send(signal.SIGTERM)
        finished = process.finish()
      assert finished.code == launch.PREEMPTED, finished.text
      (workdir / "screen.txt").write_text(finished.text)
  return workdir, (workdir / "screen.txt").read_text()


@pytest.fixture(scope="session")
def pictures(shared_folder):
  """A folder of images of many sizes and three kinds. Do not write to it."""
  folder = shared_folder / "pictures"
  with made_once(folder) as missing:
    if missing:
      rng = np.random.default_rng(0)
      for split, count in (("train", 40), ("val", 7)):
        for label, name in enumerate(("ant", "bee 10", "bee 9")):
          class_folder = folder / split / name
          class_folder.mkdir(parents=True)
          for i in range(count):
            size = rng.integers(20, 40, size=2)
            image = rng.integers(0, 90, (*size, 3)) + 80 * label
            extension = ("jpg", "JPEG", "png")[i % 3]
            Image.fromarray(image.astype(np.uint8)).save(
              class_folder / f"{i}.{extension}"
            )
  return folder


@pytest.fixture(scope="session")
def packed(shared_folder, pictures):
  """Overrides of runs on `pictures` packed in other ways, by name."""
  tars, parquets = shared_folder / "tars", shared_folder / "parquets"
  with made_once(tars) as missing:
    if missing:
      packing.pack(pictures, tars, parquets)
  mixture = f"mixture:0.7*wds:{tars}+0.3*folder:{pictures}"
  return {
    "wds": [f"wds:{tars}"],
    "parquet": [f"parquet:{parquets}"],
    "mixture": [mixture],
    "balanced": [mixture, "input.sampling=balanced"],
    "fold": [f"parquet:{parquets}:fold=2/5"],
  }


@pytest.fixture(scope="session")
def on_pictures(shared_folder, cache, pictures):
  """A finished run on `pictures`, and what it said."""
  workdir = shared_folder / "on_pictures"
  with made_once(workdir) as missing:
    if missing:
      arguments = launch.on_folder(workdir, pictures)
      finished = launch.run(*arguments, cache=cache).assert_done()
      (workdir / "screen.txt").write_text(finished.text)
  return workdir, (workdir / "screen.txt").read_text()
