"""What cannot be run: one message that says what to do, and nothing lost."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.e2e import launch, tiny
from vitjax import train
from vitjax.config import resolving, schema
from vitjax.data import pipeline, sources
from vitjax.data.pp import builder

QUICKSTART = "--config=configs/quickstart.py"


@pytest.mark.parametrize(
  ("arguments", "parts"),
  [
    ([], ["--config is missing, such as --config=quickstart.py"]),
    (
      ["--config=configs/missing.py"],
      [
        "no file 'configs/missing.py' here, nor a shipped config",
        "vitjax configs",
      ],
    ),
    (["--config=configs"], ["Is a directory: 'configs'"]),
    (
      [QUICKSTART, "--config.modle.variant=x"],
      ["a key that the config lacks: 'modle'", 'Did you mean "model"'],
    ),
    (
      [QUICKSTART, "--config.optim.learning_rate=abc"],
      ["--config.optim.learning_rate=abc", "could not convert"],
    ),
    (
      [QUICKSTART, "--config.lr=abc"],
      ["config.lr is not a key", "Known: "],
    ),
    (
      [QUICKSTART, "--config.input.batchsize=3", "--config.los=x"],
      ["config.input.batchsize is not", "'batch_size'", "config.los is not"],
    ),
    (
      [QUICKSTART, "--config.total_steps=3", "--config.total_epochs=2"],
      ["config.total_* is given in two units."],
    ),
    (
      ["--config=configs/plain_vit.py:s16,rez=3"],
      ["option 'rez=3' of the config is not known. Did you mean 'res'?"],
    ),
    (
      ["--config=configs/plain_vit.py:s16,res=big"],
      ["option res='big' of the config must be of type int, such as 224"],
    ),
    ([QUICKSTART, "--wordkir=x"], ["Unknown command line flag 'wordkir'"]),
    ([QUICKSTART, "word"], ["'word' is not a flag"]),
    (
      [QUICKSTART, *(f"--config.input.data=wds:/a/{i}.tar" for i in (0, 1))],
      ["--config.input.data is given 2 times", "single quotes"],
    ),
  ],
  ids=lambda x: " ".join(x).replace("--config", "") if x else "nothing",
)
def test_the_command_line(tmp_path, arguments, parts):
  result = launch.run(
    "vitjax.main", *arguments, f"--workdir={tmp_path / 'run'}", cache=tmp_path
  )
  result.assert_refused(*parts)
  assert not list(tmp_path.iterdir())


def test_a_workdir_in_an_object_store(tmp_path):
  launch.run(
    "vitjax.main", QUICKSTART, "--workdir=s3://bucket/run", cache=tmp_path
  ).assert_refused("s3://bucket/run: cannot write there", "`aws configure`")


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
  (tmp_path / "file").touch()
  code = (
    "import pathlib, jax; from vitjax import main;"
    "main.use_compilation_cache(pathlib.Path('run'));"
    "print('now', jax.config.jax_compilation_cache_dir)"
  )
  for folder, used in ((tmp_path / "file", "run/compiled"), (tmp_path, None)):
    done = subprocess.run(
      [sys.executable, "-c", code],
      cwd=launch.ROOT,
      env=os.environ | {"JAX_COMPILATION_CACHE_DIR": str(folder)},
      capture_output=True,
      text=True,
      check=True,
    )
    warning = f"JAX_COMPILATION_CACHE_DIR={folder} cannot be written"
    assert (warning in done.stderr) == (used is not None), done.stderr
    assert done.stdout == f"now {used or folder}\n"


def resolved(**overrides) -> schema.RunConfig:
  config = tiny.get_config()
  config.update_from_flattened_dict(overrides)
  return resolving.resolve(config)


@pytest.mark.parametrize(
  ("overrides", "parts"),
  [
    (
      {"model.widht": 3, "optim.beta1": 0.8, "evals.test.topk": 3},
      [
        "config.model.widht is not a key. Did you mean 'width'?",
        "config.optim.beta1 is not a key",
        "config.evals.test.topk is not",
      ],
    ),
    ({"input.pp": "value_rnge(-1, 1)"}, ["config.input.pp", "value_range"]),
    ({"model.variant": "huge"}, ["config.model", "huge"]),
    (
      {"input.batch_size": 20},
      ["does not divide into the 8 parts", "16 or 24"],
    ),
    ({"input.data": "folder:/no/such"}, ["'/no/such' does not exist"]),
    ({"input.data": "cifra10"}, ["is not a TFDS data set", "'cifar10'"]),
    ({"input.data": "cifar10:9.9.9"}, ["version 9.9.9, only: 3.0.2"]),
    ({"input.split": "tarin"}, ["no split 'tarin'", "train (1437)"]),
    ({"num_classes": 7}, ["config.num_classes=7", "has 10 classes"]),
    (
      {"model.num_classes": 12},
      ["config.model.num_classes=12, but the run has 10 classes"],
    ),
    ({"model.num_classes": None}, ["config.model.num_classes=None, but"]),
    (
      {"evals.test.pp": "resize(16)|value_range(-1, 1)"},
      ["config.evals.test: images of 16x16x1 do not fit", "takes 8x8x1"],
    ),
    (
      {"evals.test.pp": "keep('image')|value_range(-1, 1)"},
      ["config.evals.test: examples have no 'label' after the ops of"],
    ),
    (
      {"evals.test.split": "test[:50%]+train+test[25%:]"},
      ["config.evals.test: split", "contains 90 of its examples more than"],
    ),
    (
      {"checkpoint.best_metric": "test_ema/acc"},
      ["eval 'test_ema' does not give 'acc'", "It gives test_ema/acc@1, "],
    ),
  ],
  ids=lambda x: " ".join(x) if isinstance(x, dict) else "",
)
def test_what_only_its_reader_can_check(tmp_path, overrides, parts):
  # Raised before anything is written; `main` turns it into one message.
  with pytest.raises(ValueError) as error:
    train.train_and_evaluate(resolved(**overrides), tmp_path / "run")
  for part in parts:
    assert part in str(error.value)
  assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_data_set_that_is_not_prepared(tmp_path, cache):
  result = launch.run(
    *launch.tiny(
      tmp_path / "run",
      "input.data=cifar10",
      f"input.data_dir={tmp_path / 'tfds'}",
    ),
    cache=cache,
  )
  result.assert_refused(
    "'cifar10/3.0.2' is not prepared", "tfds build cifar10", "folder:/path"
  )
  assert result.seconds < 120  # alone: eight; it never asks the network
  assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_an_empty_class_folder(tmp_path, cache, pictures):
  shutil.copytree(pictures, tmp_path / "data")
  (tmp_path / "data" / "train" / "cow").mkdir()
  launch.run(
    *launch.on_folder(tmp_path / "run", tmp_path / "data"), cache=cache
  ).assert_refused("No images in class folder(s)", "'cow'", "Remove these")
  assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_another_config_in_the_same_workdir(tmp_path, cache, straight):
  workdir = tmp_path / "run"
  shutil.copytree(straight, workdir)
  before = launch.contents(workdir)
  launch.run(
    *launch.tiny(workdir, "optim.learning_rate=2e-3"), cache=cache
  ).assert_refused(
    "is a run with another config",
    "optim.learning_rate: 0.001 -> 0.002",
    "--workdir",
  )
  after = launch.contents(workdir)
  assert "Traceback" in after.pop("error.txt").decode()
  assert before == after


@pytest.mark.slow
def test_a_loss_that_is_not_finite(tmp_path, cache, straight):
  launch.run(
    *launch.tiny(tmp_path, "optim.learning_rate=1e30"), cache=cache
  ).assert_refused(
    "at step 2; training stops. No checkpoint was saved", "learning rate"
  )
  assert not launch.saved_steps(tmp_path)
  # What to look into: the examples of that batch, each once.
  found = json.loads((tmp_path / "divergence.json").read_text())
  assert (found["step"], found["last_good_step"]) == (2, 1)
  assert found["saved_step"] is None
  assert found["measured"]["train/loss"] == "nan" or (
    found["measured"]["train/param_norm"] in ("nan", "inf")
  )
  config = tiny.get_config()
  batches = pipeline.train_batches(
    sources.open_source("digits", "train"),
    builder.build(config.input.pp),
    batch_size=config.input.batch_size,
    repeats=config.input.repeats,
    seed=config.seed,
    start_step=1,
    total_steps=2,
  )
  expected = dict.fromkeys(map(str, next(batches)["index"]))
  assert list(found["examples"]) == list(expected) and len(expected) == 16


def last_of_the_first_epoch(data, tmp_path):
  """The file of the example that a run on `data` comes to last."""
  source = sources.open_source(f"folder:{data}", "train")
  batches = pipeline.train_batches(
    source,
    builder.build("decode|resize(4)"),
    batch_size=8,
    seed=tiny.get_config().seed,
    start_step=0,
    total_steps=source.num_examples // 8,
  )
  *_, last = batches
  return tmp_path / source.describe(int(last["index"][-1]))


@pytest.mark.slow
def test_an_image_that_breaks_and_is_mended(
  tmp_path, cache, pictures, on_pictures
):
  data, workdir = tmp_path / "data", tmp_path / "run"
  shutil.copytree(pictures, data)
  arguments = launch.on_folder(workdir, data)
  file = last_of_the_first_epoch(data, tmp_path)
  original = file.read_bytes()
  file.write_bytes(bytes(len(original)))  # a bad block of the disk
  broken = launch.run(*arguments, cache=cache)
  broken.assert_refused(str(file), "Cannot read", "Put the original back")
  # What was computed is saved and recorded.
  saved = launch.saved_steps(workdir)  # the best and the latest
  assert 1 <= saved[-1] <= 15 and launch.last_step(workdir) == saved[-1]
  launch.run(*arguments, cache=cache).assert_refused(str(file))
  assert launch.saved_steps(workdir) == saved
  # The data are those that the run began with: nobody can tell.
  file.write_bytes(original)
  launch.run(*arguments, cache=cache).assert_done()
  launch.assert_same_run(workdir, on_pictures[0])


@pytest.mark.slow
def test_other_data_under_a_run(tmp_path, cache, pictures):
  data, workdir = tmp_path / "data", tmp_path / "run"
  shutil.copytree(pictures, data)
  arguments = launch.on_folder(workdir, data)
  file = last_of_the_first_epoch(data, tmp_path)
  original = file.read_bytes()
  file.write_bytes(original[: len(original) // 3])
  launch.run(*arguments, cache=cache).assert_refused(str(file))
  saved = launch.contents(workdir / "checkpoints")
  # A whole image in place of one that was broken from the beginning is other
  # data, as the message says: it has another size.
  file.write_bytes(original)
  launch.run(*arguments, cache=cache).assert_refused(
    "has changed since this run began", "another --workdir"
  )
  assert launch.contents(workdir / "checkpoints") == saved
