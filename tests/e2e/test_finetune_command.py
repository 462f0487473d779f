"""`vitjax finetune` as a user runs it: chooses, trains, resumes, exports."""

import json
import re
import shlex
import signal

import pytest

import vitjax
from tests import run_folders
from tests.e2e import launch
from vitjax.finetune import choosing, stored
from vitjax.finetune.recipe import Recipe

pytestmark = pytest.mark.slow
OPTIONS = {"res": 32, "batch": 16, "epochs": 40, "train": "train", "val": "val"}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
  return run_folders.make_images(tmp_path_factory.mktemp("images"))


def command(images, workdir) -> list[str]:
  """The command; what it would choose in the time is there already."""
  data = f"folder:{images}"
  recipe = Recipe("small_vit.py", {"data": data, **OPTIONS})
  choice = choosing.Choice(recipe, "val", ("data: noise", "device: any"))
  stored.write(workdir, choosing.Request(data), choice)
  return ["vitjax.finetune", data, f"--workdir={workdir}"]


@pytest.fixture(scope="module")
def finished(images, tmp_path_factory, cache):
  workdir = tmp_path_factory.mktemp("finetuned")
  done = launch.run(*command(images, workdir), cache=cache).assert_done()
  return workdir, done.text


def test_the_printed_command_gives_the_same_run(finished, tmp_path, cache):
  workdir, text = finished
  printed = re.search(r"^vitjax train (?:.*\\\n)+.*$", text, re.MULTILINE)[0]
  words = shlex.split(printed.replace("\\\n", ""))[2:]
  assert words.pop() == f"--workdir={workdir}"
  other = tmp_path / "other"
  arguments = ("vitjax.main", *words, f"--workdir={other}")
  launch.run(*arguments, cache=cache).assert_done()
  launch.assert_same_run(workdir, other)


def test_the_run_folder_has_what_a_user_needs(finished):
  workdir, text = finished
  assert "data: noise" in text and "balanced_acc" in text
  val, test = map(
    json.loads, (workdir / "evaluation.jsonl").read_text().splitlines()
  )
  assert val["metrics"] == test["metrics"] and val["metrics"]["n_seen"] == 21
  best = vitjax.load(workdir / "best.npz")
  assert best.class_names == vitjax.load(workdir, step="best").class_names
  assert "confusion" in (workdir / "report.html").read_text()


def test_the_same_command_resumes(finished, images, tmp_path, cache):
  arguments = command(images, tmp_path)
  with launch.Process(*arguments, cache=cache) as process:
    process.wait_for_step(tmp_path, 3)
    process.send(signal.SIGTERM)
    assert process.finish().code == launch.PREEMPTED
  launch.run(*arguments, cache=cache).assert_done()
  launch.assert_same_run(tmp_path, finished[0])
  other = launch.run(*arguments, "--minutes=3", cache=cache)
  assert other.code == 1 and "minutes: 30.0 -> 3.0" in other.text


def test_a_dry_run_chooses_and_writes_nothing(images, tmp_path, cache):
  workdir = tmp_path / "new"
  arguments = ("vitjax.finetune", f"folder:{images}", "--model=scratch")
  done = launch.run(
    *arguments, f"--workdir={workdir}", "--dry_run", cache=cache
  ).assert_done()
  for word in ("data", "device", "model", "length", "care"):
    assert re.search(rf"^{word}: ", done.text, re.MULTILINE), done.text
  assert not workdir.exists()
  short = launch.run(*arguments, "--minutes=0.1", "--dry_run", cache=cache)
  assert short.code == 1 and "--minutes=0.1 leaves time for" in short.text
