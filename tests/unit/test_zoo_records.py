"""Each record of a published file is whole, true to the models, and alone."""

import ast
import math
import pathlib
import re

import jax
import jax.numpy as jnp
import pytest

from configs import transfer
from scripts.update_docs import choose, pages
from vitjax import models, trees
from vitjax.config import resolving
from vitjax.data import tokenizers
from vitjax.weights import augreg, zoo

ROOT = pathlib.Path(__file__).parents[2]
ENTRIES = zoo.entries()
LOSSES = {
  "contrastive",
  "siglip",
  "sigmoid_xent",
  "sigmoid_xent_mean",
  "softmax_xent",
}

# One of each family; the others are slow.
SOME = (
  "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
  "vit_base_patch16_224.orig_in21k",
  "convnext_atto.d2_in1k",
  "mixer_b16_224.goog_in21k",
  "i1k-s16-90ep",
)


def networks():
  """An entry of each network, head and size."""
  found = {}
  for entry in ENTRIES.values():
    key = (entry.model, tuple(entry.options.items()), entry.image_size)
    if key not in found or entry.name in SOME:
      found[key] = entry.name
  return sorted(found.values())


def outputs(entry, image_size, **options):
  """Shapes of parameters and of the first output."""
  model = models.create(entry.model, **{**entry.options, **options})
  if entry.family == "two_tower":
    inputs = model.example_inputs((image_size, image_size), 3)
  else:
    inputs = [jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)]
  out, variables = jax.eval_shape(
    model.init_with_output, jax.random.key(0), *inputs
  )
  params = trees.flatten(variables["params"])
  return sum(math.prod(x.shape) for x in params.values()), out[0].shape


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=() if name in SOME else pytest.mark.slow)
    for name in networks()
  ],
)
def test_the_model_has_the_parameters_and_classes_that_are_stated(name):
  entry = ENTRIES[name]
  _, logits = outputs(entry, entry.image_size)
  classes = entry.options.get("num_classes")
  assert classes is None or logits == (1, classes)
  stated = models.list().get(entry.model, {})
  if "params" in stated:
    more = {} if entry.family == "two_tower" else {"num_classes": 1000}
    if entry.options.get("rep_size"):
      more["rep_size"] = False
    count, _ = outputs(entry, stated["image_size"], **more)
    assert count == stated["params"]


def test_every_field_has_a_value_that_is_known():
  for name, entry in ENTRIES.items():
    assert entry.name == name
    assert entry.normalisation in zoo.NORMALISATIONS, name
    assert entry.interpolation in ("bilinear", "bicubic"), name
    assert entry.conventions in ("vision_transformer", "timm"), name
    assert entry.loss in LOSSES, name
    assert entry.tokenizer in (None, *tokenizers.TOKENIZERS), name
    assert bool(entry.tokenizer) == bool(entry.vocab), name
    assert entry.classes in (None, "imagenet2012"), name
    if entry.classes:
      assert entry.options["num_classes"] == 1000, name
    assert entry.data and entry.paper.startswith("https://"), name
    assert entry.resize is None or entry.resize >= entry.image_size, name
    assert (entry.top1 is None) == (entry.source is None), name
    assert entry.top1 is None or 50 < entry.top1 < 91, name
    family = models.list().get(entry.model, {"model": entry.model})["model"]
    assert entry.family == family, name


def test_the_size_of_a_model_with_a_position_table_is_that_of_its_file():
  for name, entry in ENTRIES.items():
    stated = models.list().get(entry.model, {}).get("image_size")
    if re.search(r"_\d{3}$", entry.model) and entry.family != "convnext":
      assert stated == entry.image_size, name


def test_files_that_nobody_can_read_name_one_that_can_be_read():
  closed = [entry for entry in ENTRIES.values() if not entry.has_home]
  assert len(closed) > 20
  for entry in ENTRIES.values():
    assert (entry.instead is None) == entry.has_home, entry.name
  for entry in closed:
    assert zoo.find(entry.instead).has_home, entry.name


@pytest.mark.parametrize(
  ("name", "instead"),
  [
    (
      "B_16-i21k-300ep-lr_0.001-aug_strong2-wd_0.1-do_0.1-sd_0.1",
      "vit_base_patch16_224.augreg_in21k",
    ),
    (
      "B_8-i21k-300ep-lr_0.001-aug_none-wd_0.1-do_0.0-sd_0.0"
      "--imagenet2012-steps_20k-lr_0.01-res_384",
      "vit_base_patch8_224.augreg_in21k_ft_in1k",
    ),
  ],
)
def test_any_file_of_the_grid_names_one_of_its_model(name, instead):
  entry = zoo.find(name)
  assert not entry.has_home and entry.instead == instead
  assert zoo.find(instead).has_home


def test_the_first_home_is_open_where_there_is_one():
  for entry in ENTRIES.values():
    assert entry.files[0].is_closed != entry.has_home, entry.name


def test_checksums_are_hexadecimal_and_of_a_file():
  homes = {
    file.name.removesuffix(".safetensors")
    for entry in ENTRIES.values()
    for file in entry.files
    if file.sha256
  }
  assert len(homes) > 10 and zoo.entry._TIMM_SHA256.keys() <= homes
  for entry in ENTRIES.values():
    for file in (*entry.files, *entry.vocab):
      if file.sha256:
        assert re.fullmatch(r"[0-9a-f]{8}|[0-9a-f]{64}", file.sha256), file
      if start := re.search(r"-([0-9a-f]{8})\.pth$", file.url):
        assert file.sha256.startswith(start[1]), file


def test_the_checkpoints_to_recommend():
  """vision_transformer's table, which its index gives too."""
  name = "R_Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0"
  assert zoo.recommended("R_Ti_16") == zoo.recommended("R+ViT-Ti_16") == name
  assert zoo.recommended("B_8") is None  # not in the table
  tuned = zoo.find(f"{name}--imagenet2012-steps_20k-lr_0.03-res_384")
  assert tuned.top1 == 75.4
  for key in augreg.MODELS:
    if known := zoo.recommended(key):
      assert ENTRIES[known].model == augreg.MODELS[key]


def test_every_classifier_can_be_fine_tuned():
  """transfer.py makes a config of it, and images as the weights know them."""
  for name, entry in ENTRIES.items():
    if entry.family == "two_tower":
      with pytest.raises(ValueError, match="compares images with texts"):
        transfer.get_config(f"{name},cifar10")
      continue
    run = resolving.resolve(transfer.get_config(f"{name},cifar10"))
    models.create(**run.model, num_classes=10)
    assert run.input.pp.endswith(f"|{entry.normalise}"), name
    assert run.evals["val"].pp.endswith(f"|{entry.normalise}"), name
    is_sgd = entry.conventions == "vision_transformer"
    assert run.optim["name"] == ("sgd" if is_sgd else "adam"), name


def test_the_documentation_lists_published_models_with_their_accuracy():
  text = (pages.DOCS / "choose.md").read_text(encoding="utf-8")
  for name in (*choose.CLASSIFIERS, *choose.TWO_TOWERS):
    assert f"| `{name}` |" in text
  for name in choose.CLASSIFIERS:
    assert ENTRIES[name].has_home and ENTRIES[name].top1, name


def sources():
  """Python files that may not state what the records state."""
  for folder in ("configs", "vitjax"):
    for path in sorted((ROOT / folder).rglob("*.py")):
      if ROOT / "vitjax" / "weights" / "zoo" not in path.parents:
        yield path


def stated_twice(tree: ast.AST, names: set[str]) -> list[tuple[int, str]]:
  """Lines that say something of published files, and what they say."""
  found = []
  for node in ast.walk(tree):
    if isinstance(node, ast.Dict):
      keys = {k.value for k in node.keys if isinstance(k, ast.Constant)}
      if len(keys & names) > 1:
        found.append((node.lineno, f"a table of {sorted(keys & names)}"))
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
      for part in ("0.48145466", "://vit_models/", "huggingface.co/timm"):
        if part in node.value and "\n" not in node.value:
          found.append((node.lineno, part))
    elif (
      isinstance(node, ast.Call)
      and isinstance(node.func, ast.Attribute)
      and node.func.attr == "startswith"
    ):
      parts = [x for arg in node.args for x in getattr(arg, "elts", [arg])]
      for part in parts:
        start = getattr(part, "value", None)
        if isinstance(start, str) and start:
          if any(x.startswith(start) for x in names):
            found.append((node.lineno, f"a guess by {start!r}"))
  return found


def published_names() -> set[str]:
  architectures = {name for name in models.list() if "testing" not in name}
  return {*ENTRIES, *architectures, *augreg.MODELS}


def test_no_fact_of_a_file_stands_twice():
  names = published_names()
  for code in (
    'x = {"ViT-B_16": 384, "ViT-L_16": 384}',
    'x = {"B_16": "ViT-B_16", "S_16": "ViT-S_16"}',
    'x = name.startswith(("Mixer-", "BiT-"))',
    'x = "normalize((0.48145466, 0.4578275, 0.40821073), (1, 1, 1))"',
  ):
    assert stated_twice(ast.parse(code), names), code
  # The names of architectures, and how AugReg's file names are read.
  owners = {ROOT / "vitjax" / "weights" / "augreg.py"}
  for path in sources():
    if path in owners or path.parent == ROOT / "vitjax" / "models":
      continue
    found = stated_twice(ast.parse(path.read_text(encoding="utf-8")), names)
    assert not found, f"{path}: {found}"
