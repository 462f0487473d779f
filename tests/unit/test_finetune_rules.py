"""What `vitjax finetune` chooses, and that its printed command is the run."""

import dataclasses
import shlex

import cv2
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from scripts import finetune_grid
from tests.unit.test_command import resolve
from vitjax.config import plain
from vitjax.config.schema import ConfigError
from vitjax.finetune import __main__ as command
from vitjax.finetune import choosing, facts, rules, stored
from vitjax.finetune.recipe import Recipe
from vitjax.parallel import memory

CPU = facts.Device("cpu", "cpu", 1, 2**34, 2)
GPU = facts.Device("gpu", "H100", 8, 2**36, 16)
DATA = facts.Data(
  data="folder:images",
  train="train",
  val="val",
  test=None,
  num_train=2000,
  num_val=200,
  num_test=0,
  class_names=("cat", "dog"),
  counts=(1000, 1000),
  side=300,
  sizes=((300, 300), (300, 400)),
  is_grey=False,
)


def data(**changes) -> facts.Data:
  return dataclasses.replace(DATA, **changes)


def write_images(folder, split, name, count, shape=(8, 8, 3)):
  (folder / split / name).mkdir(parents=True)
  rng = np.random.default_rng(0)
  for i in range(count):
    pixels = rng.integers(0, 256, shape, np.uint8)
    cv2.imwrite(str(folder / split / name / f"{i}.png"), pixels)


@pytest.mark.parametrize(
  ("counts", "metric", "sampling"),
  [
    ((1000, 501), "acc@1", None),
    ((1000, 500), "balanced_acc", None),
    ((1000, 201), "balanced_acc", None),
    ((1000, 200), "balanced_acc", "balanced"),
    (None, "acc@1", None),
  ],
)
def test_uneven_classes_are_shown_and_measured_alike(counts, metric, sampling):
  uneven = data(counts=counts)
  assert rules.metric(uneven) == metric
  assert rules.sampling(uneven) == sampling


@pytest.mark.parametrize(
  ("names", "expected"),
  [
    (("cat", "dog"), True),
    (("0", "1"), False),
    (("turn_left", "stop"), False),
    (("Right", "up"), False),
    (("bright", "leftover"), True),
  ],
)
def test_mirror_images_that_would_be_another_class(names, expected):
  assert rules.mirrors(data(class_names=names)) == expected


@pytest.mark.parametrize(
  ("num_train", "device", "expected"),
  [(10, CPU, 16), (1300, CPU, 64), (10**6, CPU, 64), (10**6, GPU, 512)],
)
def test_the_batch_follows_the_data_and_the_device(num_train, device, expected):
  assert rules.batch_size(data(num_train=num_train), device) == expected
  three = dataclasses.replace(device, count=3)
  assert rules.batch_size(data(num_train=num_train), three) % 3 == 0


def test_the_rate_keeps_the_noise():
  assert rules.rate_factor(256, 64, is_adam=True) == 2
  assert rules.rate_factor(256, 64, is_adam=False) == 4


def test_few_images_are_seen_more_often():
  for count in (100, 2000, 10**6):
    epochs = rules.epochs(data(num_train=count), 64, is_pretrained=True)
    assert epochs >= 10 and epochs * count >= 500 * 64
  assert epochs == 10


@pytest.mark.parametrize("is_pretrained", [True, False])
@pytest.mark.parametrize("side", [8, 28, 100, 4000])
def test_sizes_get_smaller_and_fit_the_patches(side, is_pretrained):
  sides = rules.sides(data(side=side), is_pretrained=is_pretrained)
  assert list(sides) == sorted(set(sides), reverse=True)
  assert all(x % 8 == 0 and 32 <= x <= 224 for x in sides)


def test_small_images_are_not_enlarged_from_scratch():
  for side, expected in ((8, 32), (28, 32), (40, 32), (64, 64), (96, 96)):
    assert rules.sides(data(side=side), is_pretrained=False)[0] == expected


def test_facts_of_a_folder(tmp_path):
  write_images(tmp_path, "train", "a", 5, (8, 12, 3))
  write_images(tmp_path, "train", "b", 2, (10, 10, 3))
  write_images(tmp_path, "val", "a", 1)
  write_images(tmp_path, "testing", "b", 3)
  found = facts.of_data(str(tmp_path))
  assert found.data == f"folder:{tmp_path}"
  assert (found.train, found.val, found.test) == ("train", "val", "test")
  assert (found.num_train, found.num_val, found.num_test) == (7, 1, 3)
  assert found.counts == [5, 2] and found.imbalance == 2.5
  assert found.sizes == ((8, 12), (10, 10)) and found.side == 8
  assert not found.is_grey


def test_images_are_held_back_where_there_is_no_val(tmp_path):
  # Of a folder by class: its last tenth would be of one class.
  for name in "abc":
    write_images(tmp_path, "train", name, 10, (8, 8))
    write_images(tmp_path, "test", name, 1)
  found = facts.of_data(f"folder:{tmp_path}")
  assert found.data == f"folder:{tmp_path}:fold=1/10"
  assert found.counts == [9, 9, 9] and found.num_val == found.num_test == 3
  assert found.is_grey
  digits = facts.find_splits("digits")
  assert digits == ("digits", "train[:90%]", "train[90%:]", "test")


def test_data_that_cannot_be_used(tmp_path):
  with pytest.raises(ValueError, match="has a comma"):
    facts.check_characters("folder:/my,images")
  (tmp_path / "1.jpg").write_bytes(b"")
  (tmp_path / "captions.jsonl").write_text(
    '{"file": "1.jpg", "caption": "x"}\n'
  )
  with pytest.raises(ValueError, match="has no classes"):
    facts.of_data(f"captions:{tmp_path}/captions.jsonl")
  for name in ("a", "b", "c"):
    write_images(tmp_path, ".", name, 1)
  table = tmp_path / "table.csv"
  table.write_text("file,x,y\na/0.png,1,0\nb/0.png,0,1\nc/0.png,1,1\n")
  for kind in ("regression", "multi_label"):
    with pytest.raises(ValueError, match=r"has (any|num).*Run `vitjax train"):
      facts.of_data(f"labels:{table}:{kind}=x+y")


def test_unknown_classes_are_not_counted(tmp_path):
  write_images(tmp_path, ".", "a", 4)
  rows = [f"a/{i}.png,{x}" for i, x in enumerate(("p", "q", "", "p"))]
  (tmp_path / "table.csv").write_text(
    "\n".join(
      ["file,label,split"]
      + [f"{row},{'val' if i == 3 else 'train'}" for i, row in enumerate(rows)]
    )
  )
  found = facts.of_data(f"labels:{tmp_path}/table.csv:ignore=empty")
  assert found.counts == [1, 1] and found.num_train == 3


def test_parquet_files_in_order_of_classes_hold_back_each_class(tmp_path):
  write_images(tmp_path, ".", "a", 1)
  image = (tmp_path / "a" / "0.png").read_bytes()
  labels = [x for x in "abc" for _ in range(10)]
  table = pa.table({"image": [image] * 30, "label": labels})
  parquet.write_table(table, tmp_path / "train-0.parquet", compression="none")
  found = facts.of_data(f"parquet:{tmp_path}")
  assert found.counts == [9, 9, 9] and found.num_val == 3


def test_the_first_weights_that_can_be_read_are_taken():
  readable = set()

  def read(name):
    if name not in readable:
      raise OSError(f"{name}: no route to host")

  request = choosing.Request("folder:images")
  first, second = rules.published(GPU)
  weights, model, why = choosing.find_weights(request, GPU, read)
  assert weights is model is None
  assert f"{first} and {second} can be neither found" in why
  readable.add(second)
  assert choosing.find_weights(request, GPU, read)[0] == second
  readable.add(first)
  assert choosing.find_weights(request, GPU, read)[0] == first
  scratch = choosing.Request("folder:images", model="scratch")
  assert choosing.find_weights(scratch, GPU, read)[0] is None
  with pytest.raises(ValueError, match="no such file"):
    given = choosing.Request("x", model="ViT-B_16", weights="/no/such.npz")
    choosing.find_weights(given, CPU, read)


def test_a_file_of_weights_gets_its_model(tmp_path):
  file = tmp_path / "lite0.npz"
  file.write_bytes(b"")
  given = choosing.Request("x", model="ViT-B_16", weights=str(file))
  weights, model, _ = choosing.find_weights(given, CPU)
  recipe = choosing.base_recipe(DATA, weights, model, mirror=False)
  run = recipe.resolve()
  assert run.init.weights == str(file) and run.model["name"] == "ViT-B_16"
  assert "flip" not in run.input.pp
  assert choosing.has_free_size(str(file))
  file.with_suffix(".json").write_text("{}")  # then its size is known
  assert not choosing.has_free_size(str(file))
  assert not choosing.has_free_size("imagenet21k/Mixer-B_16")


def test_a_batch_is_split_until_it_fits():
  def measure(run):
    if run.accumulation_steps < 4:
      raise memory.OutOfMemoryError
    return run

  recipe = choosing.base_recipe(DATA, None, None, None).changed(batch=8)
  found, run = choosing.fit_memory(recipe, CPU, measure)
  assert found.overrides["accumulation_steps"] == run.accumulation_steps == 4
  with pytest.raises(memory.OutOfMemoryError):
    choosing.fit_memory(recipe.changed(batch=2), CPU, measure)
  two = dataclasses.replace(CPU, count=4)  # each has 2 images
  with pytest.raises(memory.OutOfMemoryError):
    choosing.fit_memory(recipe, two, measure)


def test_the_epochs_fit_the_minutes():
  needs = choosing.Times(epoch=60.0, other=120.0)
  assert needs.epochs_in(10) == 7  # 9 planned minutes, 2 of them for the rest
  assert needs.epochs_in(3) == 0.7
  assert needs.epochs_in(1) < 0
  assert needs.at(0.5, 30) == choosing.Times(epoch=15.0, other=150.0)


@pytest.mark.parametrize("weights", [None, rules.published(CPU)[0]])
def test_the_printed_command_is_the_run(weights, tmp_path):
  uneven = data(counts=(900, 100), num_train=10**5, data="folder:/my images")
  recipe = choosing.base_recipe(uneven, weights, None, None)
  recipe = choosing.with_batch(recipe, uneven, GPU)
  recipe = recipe.changed({"accumulation_steps": 2}, epochs=0.25, res=96)
  run = recipe.resolve()
  assert run.input.sampling == "balanced" and run.input.batch_size == 512
  assert run.checkpoint.best_metric == "val/balanced_acc"
  assert run.total.value == 0.25
  words = shlex.split(recipe.command(tmp_path).replace("\\\n", ""))
  assert words[:2] == ["vitjax", "train"]
  assert words.pop() == f"--workdir={tmp_path}"
  assert resolve(tmp_path, *words[2:]) == plain.to_dict(run)


def test_the_grid_changes_one_setting_at_a_time():
  recipe = choosing.base_recipe(DATA, None, None, None).changed(batch=64)
  runs = [x.resolve() for x in finetune_grid.neighbours(recipe).values()]
  assert recipe.resolve() not in runs
  assert len({plain.to_json(run) for run in runs}) == len(runs) == 4
  rate = recipe.resolve().optim["learning_rate"]
  rates = [run.optim["learning_rate"] / rate for run in runs]
  assert rates == pytest.approx([1 / 3, 3, 1, 1], rel=0.02)
  weights, _ = rules.published(CPU)  # whose recipe has no mixup
  fine = choosing.base_recipe(DATA, weights, None, None)
  assert len(finetune_grid.neighbours(fine)) == 3


def test_a_choice_is_kept_for_its_request(tmp_path):
  request = choosing.Request("folder:images", minutes=5)
  recipe = Recipe("small_vit.py", {"res": 32, "epochs": 0.5}, {"seed": 1})
  choice = choosing.Choice(recipe, "test", ("a", "b"))
  folder = tmp_path / "runs" / "new"
  assert stored.read(folder, request) is None
  stored.write(folder, request, choice)
  assert stored.read(folder, request) == choice
  with pytest.raises(ConfigError, match=r"minutes: 5 -> 6.*--workdir"):
    stored.read(folder, dataclasses.replace(request, minutes=6))
  (folder / stored.FILE).write_text('{"request": 3}')
  with pytest.raises(ValueError, match=r"finetune\.json is damaged"):
    stored.read(folder, request)


def test_the_default_folder_names_data_and_model():
  workdir = command.default_workdir
  assert str(workdir("folder:/my/images", None)) == "runs/finetune-images"
  assert str(workdir("folder:~/my images", "timm/vit.x")) == (
    "runs/finetune-my_images-vit.x"
  )
