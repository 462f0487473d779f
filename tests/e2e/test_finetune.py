"""Fine-tuning as a user does it: weights in, another data set, a new head."""

import json
import signal

import numpy as np
import pytest

import vitjax
from tests.e2e import launch, tiny_family
from tests.numerics import backbones, reference
from vitjax import trees
from vitjax.run_folder.reader import read_metrics


def saturates(path: str) -> bool:
  """Of the small SwinV2: clipped, or before a sigmoid, without a gradient."""
  if path.endswith("/logit_scale"):
    return True
  return "stage0" in path and "/position_bias/" in path


def probe(workdir, pictures, weights, *overrides):
  """A linear probe on larger pictures of other classes."""
  return [
    *launch.on_folder(workdir, pictures),
    "--config.input.pp=decode(channels=1)|resize(12)|flip_lr|value_range(-1,1)",
    "--config.evals.test.pp=decode(channels=1)|resize(12)|value_range(-1,1)",
    f"--config.init.weights={weights}",
    "--config.init.reinit=('head',)",
    "--config.optim.freeze=('(?!head/).*',)",
    *(f"--config.{x}" for x in overrides),
  ]


@pytest.fixture(scope="module")
def probed(tmp_path_factory, cache, pictures, straight):
  workdir = tmp_path_factory.mktemp("probed")
  arguments = probe(workdir, pictures, straight / "params.npz")
  launch.run(*arguments, cache=cache).assert_done()
  return workdir


@pytest.mark.slow
def test_a_linear_probe_trains_the_head_alone(probed, straight):
  given, got = vitjax.load(straight), vitjax.load(probed)
  assert got.class_names == ("ant", "bee 9", "bee 10")
  before = vitjax.weights.load(
    straight / "params.npz",
    got.model,
    image_size=(12, 12),
    channels=1,
    reinit=["head"],
  )
  for name, x in trees.flatten(got.params).items():
    same = np.array_equal(x, trees.flatten(before)[name])
    assert same == (not name.startswith("head/")), name
  assert got.params["pos_embedding"].shape == (1, 9, 32)  # was a 2x2 grid
  assert given.params["pos_embedding"].shape == (1, 4, 32)


@pytest.mark.slow
def test_a_run_folder_is_as_good_as_its_file(
  tmp_path, cache, pictures, straight, probed
):
  arguments = probe(tmp_path, pictures, straight)
  launch.run(*arguments, cache=cache).assert_done()
  assert launch.record(tmp_path) == launch.record(probed)


@pytest.mark.slow
def test_weights_that_do_not_fit_stop_the_run(
  tmp_path, cache, pictures, straight
):
  weights = straight / "params.npz"
  arguments = probe(tmp_path, pictures, weights, "init.reinit=()")
  launch.run(*arguments, cache=cache).assert_refused(
    "config.init.weights=", "head/kernel (32, 10) vs (32, 3)", "reinit=['head']"
  )


@pytest.mark.slow
def test_the_average_is_evaluated_and_exported(tmp_path, cache, straight):
  rows = read_metrics(straight)
  last = rows[-1]
  assert last["test_ema/n_seen"] == last["test/n_seen"] == 360
  assert last["test_ema/loss"] != last["test/loss"]
  file = tmp_path / "average.npz"
  arguments = [f"--model={straight}", "--ema", "--format=npz", f"--out={file}"]
  launch.run("vitjax.export", *arguments, cache=cache).assert_done()
  exported = vitjax.load(file)
  assert exported.metadata["ema"] and exported.metadata["step"] == 300
  average = vitjax.load(straight, ema=True).params["head"]["kernel"]
  np.testing.assert_array_equal(exported.params["head"]["kernel"], average)
  assert not np.array_equal(
    average, vitjax.load(straight).params["head"]["kernel"]
  )


@pytest.mark.slow
@pytest.mark.parametrize(
  ("name", "grid"),
  [("mini_dinov2", [4, 4]), ("mini_dinov3", None), ("mini_eva02", [3, 4])],
)
def test_a_published_backbone_is_tuned_and_resumes_to_the_bit(
  tmp_path, cache, name, grid
):
  """In the layout of its file, at another size, with a new head."""
  _, fields = backbones.CASES[name]
  fields = {"patch_size": 16, **fields, "rope_rescale": 2.0}
  weights = tmp_path / f"{name}.npz"
  np.savez(weights, **backbones.published(name))
  if grid:
    weights.with_suffix(".json").write_text(json.dumps({"grid": grid}))
  size = 2 * fields["patch_size"]

  def command(workdir):
    return launch.tiny(
      workdir,
      f"init.weights={weights}",
      "init.reinit=('head',)",
      "init.channels=sum",
      f"input.pp=random_crop(8,padding=1)|resize({size})|value_range(-1,1)",
      f"evals.test.pp=resize({size})|value_range(-1,1)",
      "total_steps=90",
      "checkpoint.every_steps=30",
      *(f"model.{option}={value}" for option, value in fields.items()),
    )

  begun = check_killed_and_resumed(command, tmp_path, cache, kill_after=40)
  assert f"in layout {backbones.LAYOUTS[name]!r}" in begun.text


@pytest.mark.slow
@pytest.mark.parametrize(
  "name",
  [
    "mini_swin",
    "mini_swinv2",
    "mini_caformer",
    "mini_coatnet_rw",
    "mini_coatnet_rmlp_rw",
    "mini_maxxvitv2_rmlp",
    "mini_regnety",
    "mini_seresnextaa",
  ],
)
def test_a_published_family_is_tuned_and_resumes_to_the_bit(
  tmp_path, cache, name
):
  """In timm's layout, with a new head and layer decay."""
  weights = tmp_path / "weights.npz"
  np.savez(weights, **reference.arrays(name))

  def command(workdir):
    options = f"case={name},weights={weights}"
    return [
      "vitjax.main",
      f"--config=tests/e2e/tiny_family.py:{options}",
      f"--workdir={workdir}",
    ]

  check_killed_and_resumed(command, tmp_path, cache, kill_after=12)
  run = vitjax.load(tmp_path / "straight")
  model = reference.build(tiny_family.CASES, name)
  before = trees.flatten(reference.load(name, model, tmp_path))
  for path, x in trees.flatten(run.params).items():
    if not path.startswith("head/") and not saturates(path):
      assert 0 < np.abs(x - before[path]).max(), path


def check_killed_and_resumed(command, folder, cache, kill_after):
  """A run that is killed after a step ends as one that is not.

  Returns:
    What the run that is not killed printed.
  """
  straight, killed = folder / "straight", folder / "killed"
  begun = launch.run(*command(straight), cache=cache).assert_done()
  with launch.Process(*command(killed), cache=cache) as process:
    process.wait_for_step(killed, kill_after)
    process.wait_for_checkpoint(killed)
    process.send(signal.SIGKILL)
    process.finish()
  end = launch.run(*command(killed), cache=cache).assert_done()
  assert "Resuming after step" in end.text
  launch.assert_same_run(killed, straight)
  return begun
