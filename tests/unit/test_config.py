"""What a config may say, and what is said about one that is wrong."""

import ast
import dataclasses
import functools
import importlib
import inspect
import pathlib
import re
import typing
from collections.abc import Sequence

import ml_collections
import pytest

from vitjax import checks, mixing
from vitjax.config import common, flag, plain, resolving, schema

nan, inf = float("nan"), float("inf")
EVAL = {"split": "test", "pp": "value_range(-1, 1)"}


def minimal(**changes) -> ml_collections.ConfigDict:
  c = ml_collections.ConfigDict()
  c.total_steps = 10
  c.input = {"data": "digits", "batch_size": 8, "pp": "value_range(-1, 1)"}
  c.model = {"name": "vit", "variant": "mu/4"}
  c.optim = {"name": "adam", "learning_rate": 1e-3}
  for path, value in changes.items():
    *parents, key = path.split("__")
    section = c
    for name in parents:
      if name not in section:
        section[name] = ml_collections.ConfigDict()
      section = section[name]
    section[key] = value
  return c


def message(error, fn, *args) -> str:
  with pytest.raises(error) as e:
    fn(*args)
  return str(e.value)


def test_every_error_is_reported_at_once_with_path_and_nearest_name():
  c = minimal(input__bach_size=3, modle={}, seed="zero", optim__learnin_rate=1)
  del c.input["batch_size"]
  text = message(schema.ConfigError, resolving.resolve, c)
  assert "config.input.bach_size is not a key. Did you mean 'batch_size'?" in (
    text
  )
  assert "config.modle is not a key. Did you mean 'model'?" in text
  assert "config.seed='zero' (str) must be int." in text
  assert "config.input.batch_size is missing." in text
  assert len(text.splitlines()) == 4


def test_a_key_that_is_no_text():
  c = {**minimal().to_dict(), 1: 2, "ema": {3: 4}}
  text = message(schema.ConfigError, resolving.resolve, c)
  assert "config.1 is not a key." in text
  assert "config.ema.3 is not a key." in text


def test_open_sections_are_checked_in_the_same_round():
  c = minimal(
    modle={}, seed="zero", model__widht=3, optim__b3=1, input__pp="crop(2"
  )
  text = message(schema.ConfigError, resolving.resolve, c, checks.problems)
  for part in (
    "config.modle is not a key",
    "config.seed='zero' (str)",
    "config.model.widht is not a key",
    "config.optim.b3 is not a key",
    "config.input.pp: Preprocessing string, column",
  ):
    assert part in text
  # What cannot be checked for want of another key waits.
  del c.input["pp"]
  text = message(schema.ConfigError, resolving.resolve, c, checks.problems)
  assert "config.input.pp is missing." in text and "widht" not in text


@pytest.mark.parametrize(
  "change, part",
  [
    ({"total_epochs": 3}, "config.total_* is given in two units."),
    ({"checkpoint__every_steps": 0}, "every_steps=0 must be a number above 0."),
    ({"schedule__warmup_steps": 0}, "=0 must be a number above 0, or None."),
    ({"schedule__warmup_epochs": nan}, "=nan must be a number above 0, or"),
    ({"schedule__cooldown_steps": inf}, "=inf must be a number above 0, or"),
    ({"schedule__cooldown_steps": 1e12}, "above 0 and at most 2147483647, or"),
    ({"evals": {"v": {**EVAL, "every_percent": 200}}}, "and at most 100, or"),
    ({"schedule__decay": "cosin"}, "config.schedule.decay='cosin' is not one"),
    ({"input__batch_size": True}, "config.input.batch_size=True (bool)"),
    ({"input__batch_size": 0}, "config.input.batch_size=0 must be at least 1"),
    ({"accumulation_steps": 3}, "is not a multiple of"),
    ({"mixing": 3}, "config.mixing=3 must be a section"),
    ({"init__reinit": "head"}, "init.reinit='head' (str) must be a list"),
    ({"init__reinit": "head"}, "must be a list of str. Write ('head',)."),
    ({"init__reinit": (3,)}, "init.reinit=(3,) (tuple) must be a list of str"),
    ({"class_weights": "sqrt"}, "must be 'balanced' or a list of float or No"),
    ({"class_weights": ("1",)}, "must be 'balanced' or a list of float or No"),
    ({"class_weights": (1, 0)}, "=(1, 0): each number must be above 0."),
    ({"flexible__patch_sizes": (8, 0)}, "each number must be at least 1."),
    ({"flexible__image_shares": (1, 0)}, "each number must be above 0."),
    ({"evals": 3}, "config.evals=3 must be sections by name: {NAME: {'split'"),
    ({"evals": {"v": 3}}, "config.evals.v=3 must be a section, or None to"),
    ({"evals": {"a/b": EVAL}}, "config.evals.a/b: the name 'a/b' must be text"),
    ({"evals": {"train": EVAL}}, "the metrics of training are called train/"),
    ({"mixing__mode": "pair"}, "config.mixing.mode='pair' is not one of"),
    ({"init__weight": "x"}, "Did you mean 'weights'?"),
    (
      {"evals": {"v": EVAL}, "checkpoint__best_metric": "v/agreement"},
      "config.checkpoint.best_mode is missing: the name of best_metric=",
    ),
  ],
)
def test_wrong_values(change, part):
  text = message(schema.ConfigError, resolving.resolve, minimal(**change))
  assert part in text and "config.config" not in text


@pytest.mark.parametrize("weights", ["balanced", (1, 0.5), None])
def test_class_weights(weights):
  c = minimal(class_weights=weights)
  assert resolving.resolve(c).class_weights == weights


def test_an_open_section_that_is_none():
  c = {**minimal().to_dict(), "model": "vit"}
  text = message(schema.ConfigError, resolving.resolve, c)
  assert text == "config.model='vit' (str) must be a section."


# Of each key with a range: values that are allowed, and those that are not.
RANGES = {
  "seed": ([0, 2**32 - 1], [-1, 2**32, 2**40]),
  "num_classes": ([1, None], [0, -1]),
  "target_threshold": ([0, 0.5, None], [-0.1, 1, nan]),
  "accumulation_steps": ([1, 4], [0, -1]),
  "input.batch_size": ([1], [0, -8]),
  "input.repeats": ([1, 3], [0]),
  "input.prefetch": ([1], [0, -1]),
  "input.views": ([1, 3, None], [0]),
  "mixing.mixup_alpha": ([0, 0.2], [-1, nan, inf]),
  "mixing.cutmix_alpha": ([0, 1], [-1, nan, inf]),
  "mixing.prob": ([0, 1], [-0.1, 1.5, nan]),
  "mixing.switch_prob": ([0, 1], [-0.1, 1.5, nan]),
  "mixing.erase_prob": ([0, 1], [-0.1, 2, nan]),
  "mixing.label_smoothing": ([0, 0.9], [-0.1, 1, nan]),
  "distill.label_weight": ([0, 1], [-0.1, 1.5, nan]),
  "distill.temperature": ([0.5, 10], [0, nan, inf]),
  "ema.decay": ([0, 0.9999, None], [-0.1, 1, nan]),
  "sam.rho": ([0, 0.05], [-1, nan, inf]),
  "sam.rho_min": ([0, 0.05, None], [-1, nan, inf]),
  "sam.alpha": ([0, 0.05], [-1, nan, inf]),
  "schedule.end_value": ([0, 1], [-1, 5, nan]),
  "mesh.data": ([-1, 8], [-2]),
  "mesh.fsdp": ([-1, 8], [-2]),
  "mesh.model": ([-1, 8], [-2]),
  "evals.v.batch_size": ([1, None], [0, -5]),
  "checkpoint.max_failures": ([1], [0]),
  "checkpoint.patience": ([1, 3, None], [0]),
  "report.profile_first_step": ([0, 10, None], [-1]),
  "report.profile_num_steps": ([1], [0]),
}


def numbers_of(cls, path="") -> list[str]:
  """The keys of a section that are one number."""
  found = []
  for field in dataclasses.fields(cls):
    kinds = {field.type, *getattr(field.type, "__args__", ())}
    if dataclasses.is_dataclass(field.type):
      if field.type is not schema.Duration:
        found += numbers_of(field.type, f"{path}{field.name}.")
    elif field.name == "evals":
      found += numbers_of(schema.Eval, "evals.v.")
    elif typing.get_origin(field.type) is Sequence:
      continue
    elif {getattr(k, "__origin__", k) for k in kinds} & {int, float}:
      found.append(f"{path}{field.name}")
  return found


def test_every_number_has_a_range():
  assert sorted(numbers_of(schema.RunConfig)) == sorted(RANGES)


@pytest.mark.parametrize("path", RANGES)
def test_ranges(path):
  allowed, refused = RANGES[path]
  for value in (*allowed, *refused):
    c = minimal(input__batch_size=8, evals={"v": EVAL})
    section, _, key = path.rpartition(".")
    owner = c
    for name in section.split(".") if section else ():
      if name not in owner:
        owner[name] = ml_collections.ConfigDict()
      owner = owner[name]
    owner[key] = value
    if value in allowed:
      resolving.resolve(c)
    else:
      text = message(schema.ConfigError, resolving.resolve, c)
      line = next(
        x for x in text.splitlines() if x.startswith("config." + path)
      )
      assert line.startswith(f"config.{path}={value!r} must be ")
      assert any(x in line for x in ("at least", "at most", "above"))


@pytest.mark.parametrize(
  ("metric", "mode"),
  [
    ("val/loss", "min"),
    ("val_ema/loss", "min"),
    ("val/rmse", "min"),
    ("val/err@5", "min"),
    ("val/ece", "min"),
    ("val/acc@1", "max"),
    ("val/balanced_acc", "max"),
    ("val/recall[loss]", "max"),  # a class of this name
    ("val/macro_f1", "max"),
    ("val/macro_precision", "max"),
    ("val/f1[a/b]", "max"),
    ("val/auroc", "max"),
    ("val_ema/ap", "max"),
    ("val/class_ap[cat]", "max"),
    ("val/majority", None),  # of the data, not of the model
    ("val/support[cat]", None),
    ("val/confusion[cat->dog]", None),
    ("knn/20nn", "max"),
    ("few/10shot", "max"),
    ("few/10shot_l2", None),
    ("pairs/image_to_text_R@5", "max"),
    ("val/n_seen", None),
    ("val/agreement", None),
  ],
)
def test_the_best_value_follows_from_the_metric(metric, mode):
  assert resolving.best_mode(metric) == mode
  name = metric.partition("/")[0]
  c = minimal(evals={name: EVAL}, checkpoint__best_metric=metric)
  if mode:
    assert resolving.resolve(c).checkpoint.best_mode == mode
  for given in ("min", "max"):
    c.checkpoint.best_mode = given
    assert resolving.resolve(c).checkpoint.best_mode == given


def test_the_mode_of_no_metric_is_no_part_of_a_config():
  """Older files say "max" there."""
  new = plain.to_dict(resolving.resolve(minimal()))
  old = plain.to_dict(resolving.resolve(minimal(checkpoint__best_mode="max")))
  assert new == old and "best_mode" not in new["checkpoint"]


# What makes each key of the table given, and what it then needs.
NEEDS = {
  "checkpoint.best_mode": ("max", {"checkpoint.best_metric": "v/loss"}),
  "checkpoint.patience": (3, {"checkpoint.best_metric": "v/loss"}),
  "distill.cache": ("a", {"distill.teacher": "x", "input.views": 2}),
  "distill.dtype": ("float32", {"distill.teacher": "x"}),
  "distill.label_weight": (0.5, {"distill.teacher": "x"}),
  "distill.loss": ("hard", {"distill.teacher": "x"}),
  "distill.temperature": (2.0, {"distill.teacher": "x", "distill.loss": "kl"}),
  "ema.warmup": (True, {"ema.decay": 0.9}),
  "flexible.image_shares": ((1, 2), {"flexible.image_sizes": (8, 16)}),
  "init.channels": ("sum", {"init.weights": "x.npz"}),
  "init.ignore": (("a",), {"init.weights": "x.npz"}),
  "init.reinit": (("a",), {"init.weights": "x.npz"}),
  "mixing.mode": ("elem", {"mixing.cutmix_alpha": 1.0}),
  "mixing.partner": ("flip", {"mixing.mixup_alpha": 1.0}),
  "mixing.prob": (0.5, {"mixing.mixup_alpha": 1.0}),
  "mixing.switch_prob": (
    0.2,
    {"mixing.mixup_alpha": 1.0, "mixing.cutmix_alpha": 1.0},
  ),
  "optim.accumulator_dtype": (
    "bfloat16",
    {"optim.name": "sgd", "optim.momentum": 0.9},
  ),
  "optim.agc_exclude": (("a",), {"optim.agc_clip": 0.01}),
  "optim.momentum_dtype": (
    "float32",
    {"optim.name": "adafactor", "optim.momentum": 0.9},
  ),
  "optim.nesterov": (True, {"optim.name": "sgd", "optim.momentum": 0.9}),
  "pretrained_dir": ("gs://x", {"init.weights": "ViT-B_16"}),
  "report.profile_num_steps": (3, {"report.profile_first_step": 0}),
  "sam.alpha": (0.1, {"sam.rho": 0.05}),
  "sam.rho_min": (0.01, {"sam.rho": 0.05}),
  "schedule.end_value": (0.1, {"schedule.decay": "linear"}),
  "schedule.timescale": (9, {"schedule.decay": "rsqrt"}),
  "target_threshold": (0.0, {"mixing.mixup_alpha": 1.0}),
}
OFF = {
  "distill.loss": "hard",
  "optim.momentum": {"sgd": 0.0, "adafactor": None},
  "schedule.decay": "constant",
}


@pytest.mark.parametrize("path", NEEDS)
def test_a_key_without_effect_is_refused(path):
  value, needed = NEEDS[path]
  key = "schedule.timescale_steps" if path == "schedule.timescale" else path

  def problems(without=None):
    flat = {"evals.v": {**EVAL, "every_steps": 5}, **needed, key: value}
    if without in OFF:
      off = OFF[without]
      name = needed.get("optim.name")
      flat[without] = off[name] if isinstance(off, dict) else off
    elif without:
      del flat[without]
    c = minimal(**{k.replace(".", "__"): v for k, v in flat.items()})
    return checks.problems(resolving.resolve(c))

  assert not problems()
  for lacking in needed:
    if lacking != "optim.name":
      (text,) = problems(without=lacking)
      assert text.startswith(f"config.{path}=") and lacking in text
      assert "has no effect without" in text


def test_every_rule_of_the_table_is_tested():
  assert NEEDS.keys() == checks.NEEDS.keys()


@pytest.mark.parametrize(
  ("changes", "part"),
  [
    (
      {"ema__decay": 0.9, "ema__uniform_from_percent": 75},
      "config.ema.decay=0.9 and config.ema.uniform_from=75 percent: a run "
      "keeps one average. Remove",
    ),
    (
      {"optim__name": "schedule_free_adamw"},
      "config.schedule.decay='cosine' does not fit config.optim.name="
      "'schedule_free_adamw', which averages weights in place of a decay. Use "
      "config.schedule.decay='constant'; a warm-up may stay.",
    ),
    (
      {
        "optim__name": "schedule_free_sgd",
        "schedule__decay": "constant",
        "schedule__cooldown_steps": 3,
      },
      "config.schedule.cooldown=3 steps does not fit",
    ),
    (
      {
        "evals": {"v": EVAL},
        "checkpoint__best_metric": "v/loss",
        "checkpoint__patience": 2,
      },
      "config.checkpoint.patience=2 counts evals, and eval 'v' runs at the end "
      "only. Set config.evals.v.every_epochs=1",
    ),
  ],
)
def test_averages_and_patience_that_do_not_fit(changes, part):
  (text,) = checks.problems(resolving.resolve(minimal(**changes)))
  assert part in text


def test_averages_and_patience_that_fit():
  for changes in (
    {"ema__uniform_from_percent": 75},
    {
      "optim__name": "schedule_free_adamw",
      "schedule__decay": "constant",
      "schedule__warmup_steps": 3,
    },
    {
      "evals": {"v": {**EVAL, "every_steps": 2}},
      "checkpoint__best_metric": "v_ema/loss",
      "checkpoint__patience": 2,
      "ema__decay": 0.9,
    },
  ):
    checks.check(resolving.resolve(minimal(**changes)))


def test_the_average_has_a_name_of_its_own():
  evals = {"test": EVAL, "test_ema": EVAL}
  checks.check(resolving.resolve(minimal(evals=evals)))
  run = resolving.resolve(minimal(evals=evals, ema__decay=0.9))
  text = message(schema.ConfigError, checks.check, run)
  assert "config.evals.test_ema: with config.ema.decay, eval 'test'" in text


@pytest.mark.parametrize(
  "change, part",
  [
    ({"model__name": "vitt"}, "Did you mean 'vit'?"),
    ({"model__variant": "X/16"}, "variant='X/16' is not"),
    ({"model__widht": 3}, "config.model.widht is not a key. Did you mean"),
    ({"model__depth": "many"}, "config.model.depth='many' (str) must be int"),
    ({"model__posemb": "sine"}, "posemb='sine' is not one of"),
    (
      {"model__dtype": "fp16"},
      "model.dtype='fp16' (str) must be 'bfloat16' or",
    ),
    ({"optim__name": "adamw2"}, "Did you mean 'adamw'? Known: adam, "),
    ({"optim__momentum": 0.9}, "config.optim.momentum is not a key"),
    ({"optim__decay_scale": "lr"}, "config.optim.decay_scale='lr'"),
    ({"loss": "hinge"}, "config.loss='hinge' is not one of"),
    ({"input__pp": "value_rang(-1, 1)"}, "value_range"),
    ({"optim__name": "adm"}, "config.optim.name='adm' is not an optimizer"),
    ({"optim__learning_rate": -1}, "config.optim.learning_rate=-1"),
    *(
      ({"evals": {"v": {**EVAL, **options}}}, part)
      for options, part in (
        ({"type": "..evil"}, "config.evals.v.type: '..evil' is not an eval"),
        ({"type": "a..b"}, "config.evals.v.type: 'a..b' is not an evaluator"),
        ({"type": "no.such"}, "evaluator 'no.such' cannot be imported"),
        ({"type": "os.path"}, "module 'os.path' has no class Evaluator"),
        (
          {"type": "knn", "train_split": "train", "k": [5, 0]},
          "config.evals.v.k=[5, 0]: each number must be at least 1.",
        ),
        (
          {"type": "linear_probe", "train_split": "train", "held_out": 1.0},
          "config.evals.v.held_out=1.0 must be above 0 and below 1.",
        ),
      )
    ),
    (
      {"evals": {"v": {"split": "test", "pp": "decode", "k": 2}}},
      "config.evals.v.k is not a key",
    ),
    (
      {"evals": {"v": {"split": "test", "pp": "decode", "type": "classif"}}},
      "'classif' is not an evaluator",
    ),
    (
      {"evals": {"v": {"split": "test", "pp": "normalize"}}},
      "config.evals.v.pp='normalize' does not normalise images as training",
    ),
    (
      {"report__trackers": ("csv", "wanbd")},
      "config.report.trackers: 'wanbd' is not a tracker. Did you mean 'wandb'",
    ),
    (
      {"report__trackers": {"csv": {}, "wandb": {"projekt": "x"}}},
      "config.report.trackers.wandb.projekt is not a key. Did you mean 'proj",
    ),
    (
      {"report__trackers": {"mlflow": {"uri": 3}}},
      "config.report.trackers.mlflow.uri=3 (int) must be str or None",
    ),
    (
      {"report__trackers": {"csv": True}},
      "config.report.trackers.csv=True must be a section of options",
    ),
    ({"checkpoint__best_metric": "val/acc@1"}, "names no eval"),
    (
      {
        "evals": {"v": {"split": "test", "pp": "decode"}},
        "checkpoint__best_metric": "v_ema/acc@1",
      },
      "with EVAL one of v.",  # there is no average
    ),
  ],
)
def test_open_sections_are_checked_by_what_reads_them(change, part):
  run = resolving.resolve(minimal(**change))
  text = message(schema.ConfigError, checks.check, run)
  assert part in text
  for line in text.splitlines():
    path = line.partition("=")[0].partition(":")[0]
    if path.startswith("config."):
      assert line.count(f"{path}=") + line.count(f"{path}:") == 1, line


def test_a_minimal_config_passes():
  checks.check(resolving.resolve(minimal()))


@pytest.mark.parametrize(
  "duration, steps",
  [
    (schema.Duration(7, "steps"), 7),
    (schema.Duration(2, "epochs"), 20),  # 2 * 1000 / 100
    (schema.Duration(250, "examples"), 2),
    (schema.Duration(10, "percent"), 30),
    (schema.Duration(1, "examples"), 1),  # never nothing
  ],
)
def test_durations(duration, steps):
  got = schema.to_steps(
    duration, batch_size=100, num_examples=1000, total_steps=300
  )
  assert got == steps


def test_an_override_replaces_the_other_unit_of_a_duration():
  c = minimal(schedule__warmup_percent=5, checkpoint__every_epochs=1)
  c.total_epochs, c.schedule.warmup_steps = 3, 9
  flag.replace_units(c, {"total_epochs": 3, "schedule.warmup_steps": 9})
  run = resolving.resolve(c)
  assert str(run.total) == "3 epochs"
  assert str(run.schedule.warmup) == "9 steps"
  assert str(run.checkpoint.every) == "1 epochs"


def test_published_recipe_to_the_letter():
  run = resolving.resolve(
    importlib.import_module("configs.vit_s16_i1k").get_config()
  )
  assert str(run.total) == "90 epochs"
  assert run.input.batch_size == 1024
  assert run.input.pp.startswith(
    "decode_jpeg_and_inception_crop(224)|flip_lr|randaug(2, 10)"
  )
  assert dict(run.model) == {
    "name": "vit",
    "variant": "S/16",
    "pool_type": "gap",
    "posemb": "sincos2d",
    "rep_size": True,
  }
  assert dict(run.optim) == {
    "name": "adam",
    "mu_dtype": "bfloat16",
    "learning_rate": 0.001,
    "weight_decay": 0.0001,
    "decay_scale": "schedule",
    "grad_clip_norm": 1.0,
  }
  assert str(run.schedule.warmup) == "10000 steps"
  assert run.schedule.decay == "cosine"
  assert run.mixing.mixup_alpha == 0.2
  assert run.evals["val"].split == "validation"


def test_differences_name_the_keys():
  a = plain.to_dict(resolving.resolve(minimal()))
  b = plain.to_dict(resolving.resolve(minimal(optim__learning_rate=2e-3)))
  a["input"] = {"prefetch": 2, "cache": False}
  b["input"] = {"prefetch": 4, "cache": True}
  b["report"]["trackers"] = {"wandb": {"project": "x"}}
  assert plain.differences(a, b) == ["optim.learning_rate: 0.001 -> 0.002"]
  assert plain.differences(a, a) == []


SECTIONS = {
  field.name: field.type
  for field in dataclasses.fields(schema.RunConfig)
  if dataclasses.is_dataclass(field.type) and field.type is not schema.Duration
}
CLASSES = {
  cls.__name__: cls
  for cls in (schema.RunConfig, schema.Eval, *SECTIONS.values())
}
PACKAGE = pathlib.Path(schema.__file__).parents[1]


class Readers(ast.NodeVisitor):
  """Finds where a module reads a field of one of `CLASSES`.

  An expression is of a class if it is an argument with this annotation, a
  section such as `x.input`, an item of `x.evals`, called `run`, or a variable
  that was one of these. `vars(x)` reads all fields.
  """

  def __init__(self):
    self.found = set()
    self._scope = {}

  def class_of(self, node) -> str | None:
    if isinstance(node, ast.Name):
      is_run = "RunConfig" if node.id == "run" else None
      return self._scope.get(node.id) or is_run
    if isinstance(node, ast.Attribute):
      if node.attr in SECTIONS:
        return SECTIONS[node.attr].__name__
      return "RunConfig" if node.attr == "run" else None
    if isinstance(node, ast.Subscript):
      value = node.value
      is_evals = isinstance(value, ast.Attribute) and value.attr == "evals"
      return "Eval" if is_evals else None
    return None

  def visit_Attribute(self, node):
    cls = self.class_of(node.value)
    if cls and isinstance(node.ctx, ast.Load):
      self.found.add((cls, node.attr))
    self.generic_visit(node)

  def visit_Call(self, node):
    if isinstance(node.func, ast.Name) and node.func.id == "vars":
      if cls := self.class_of(node.args[0]):
        fields = dataclasses.fields(CLASSES[cls])
        self.found |= {(cls, field.name) for field in fields}
    self.generic_visit(node)

  def visit_Assign(self, node):
    pairs = [(node.targets[0], node.value)]
    if isinstance(node.targets[0], ast.Tuple):
      values = getattr(node.value, "elts", ())
      pairs = zip(node.targets[0].elts, values)
    for target, value in pairs:
      if isinstance(target, ast.Name):
        self._scope[target.id] = self.class_of(value)
    self.generic_visit(node)

  def visit_loop(self, target, items):
    """`for name, x in y.evals.items()`, and of `sections` likewise."""
    text = ast.unparse(items)
    if "evals." in text or text.startswith("sections."):
      last = target.elts[-1] if isinstance(target, ast.Tuple) else target
      self._scope[last.id] = "Eval"

  def visit_For(self, node):
    self.visit_loop(node.target, node.iter)
    self.generic_visit(node)

  def visit_comprehension(self, node):
    self.visit_loop(node.target, node.iter)
    self.generic_visit(node)

  def _visit_comprehension_first(self, node):
    for generator in node.generators:
      self.visit_comprehension(generator)
    self.generic_visit(node)

  visit_ListComp = visit_DictComp = _visit_comprehension_first
  visit_GeneratorExp = visit_SetComp = _visit_comprehension_first

  def visit_FunctionDef(self, node):
    outer = dict(self._scope)
    for arg in (*node.args.args, *node.args.kwonlyargs):
      words = ast.unparse(arg.annotation).split() if arg.annotation else ()
      names = [word.rpartition(".")[2] for word in words]
      self._scope[arg.arg] = next((x for x in names if x in CLASSES), None)
    self.generic_visit(node)
    self._scope = outer


@functools.cache
def read_by(file) -> set[tuple[str, str]]:
  """What a module reads; of the whole package this takes a second."""
  readers = Readers()
  readers.visit(ast.parse(file.read_text(encoding="utf-8")))
  return readers.found


def unread(files) -> set[tuple[str, str]]:
  """The fields of the schema that no module of these reads."""
  fields = {
    (name, field.name)
    for name, cls in CLASSES.items()
    for field in dataclasses.fields(cls)
  }
  return fields.difference(*map(read_by, files))


def test_every_field_of_the_schema_has_a_reader():
  """A key that no code reads would be accepted and ignored."""
  own = {PACKAGE / f"config/{x}.py" for x in ("schema", "resolving", "plain")}
  code = [x for x in PACKAGE.rglob("*.py") if x not in own]
  assert not unread(code)
  # Without its only reader, a field is unread, whatever else has its name.
  for module, field in (
    ("train.py", ("RunConfig", "export_npz")),
    ("train.py", ("Report", "every")),
    ("program/__init__.py", ("Schedule", "end_value")),
    ("program/__init__.py", ("Mixing", "prob")),
    ("run_folder/reporter.py", ("Report", "profile_num_steps")),
    ("pretrained.py", ("Init", "ignore")),
  ):
    assert field in unread([x for x in code if x != PACKAGE / module])
  fields = {f.name for f in dataclasses.fields(schema.Mixing)}
  read = inspect.signature(mixing.augment).parameters
  assert fields | {"image", "labels", "key", "target_threshold"} == set(read)


def test_every_field_of_the_schema_is_documented():
  """What it is, and what its default means."""
  for cls in CLASSES.values():
    text = inspect.getdoc(cls).partition("Attributes:\n")[2]
    documented = re.findall(r"^  (\w+): \S", text, re.MULTILINE)
    assert documented == [field.name for field in dataclasses.fields(cls)]
    for field in dataclasses.fields(cls):
      if field.default is None:
        entry = text.partition(f"  {field.name}: ")[2].partition("\n  ")
        whole = re.split(r"\n  (?=\w)", entry[0] + "\n  " + entry[2])[0]
        assert "None" in whole, f"{cls.__name__}.{field.name}"


@pytest.mark.parametrize(
  "data", ["folder:x", "/x", "./x", "../x", "~/x", "/x/labels.csv"]
)
def test_the_splits_of_a_path_are_those_of_a_folder(data):
  assert common.splits(data) == ("train", "val")


class TestParseArg:
  def test_types_and_first_option(self):
    arg = common.parse_arg(
      "s16,res=256,smoke", variant="", res=224, smoke=False
    )
    assert arg.to_dict() == {"variant": "s16", "res": 256, "smoke": True}

  def test_value_with_colon_slash_and_bracket(self):
    arg = common.parse_arg(
      "b16,data=folder:/a=b/c,train=train[:9%]+b", variant="", data="", train=""
    )
    assert arg.data == "folder:/a=b/c"
    assert arg.train == "train[:9%]+b"

  def test_several_options_without_a_name(self):
    def parse(text):
      return common.parse_arg(
        text, positional=2, model="a", data="b", res=1, smoke=False
      ).to_dict()

    rest = {"res": 1, "smoke": False}
    assert parse(None) == {"model": "a", "data": "b"} | rest
    assert parse("m") == {"model": "m", "data": "b"} | rest
    assert (
      parse("m,folder:/a=b") == {"model": "m", "data": "folder:/a=b"} | rest
    )
    assert parse("m,res=2")["data"] == "b"
    assert parse("smoke,m,n") == {"model": "m", "data": "n", "smoke": True} | {
      "res": 1
    }
    for text in ("m,n,o", "model=m,n"):  # the third; behind one with a name
      with pytest.raises(ValueError, match="is not known"):
        parse(text)

  def test_an_option_that_is_none_if_not_set(self):
    assert common.parse_arg("", lr=float).lr is None
    assert common.parse_arg("lr=1e-3", lr=float).lr == 1e-3
    with pytest.raises(ValueError, match="must be of type float"):
      common.parse_arg("lr=high", lr=float)

  def test_a_part_of_an_epoch(self):
    assert common.parse_arg("epochs=0.5", epochs=90).epochs == 0.5
    whole = common.parse_arg("epochs=3", epochs=90).epochs
    assert whole == 3 and isinstance(whole, int)

  @pytest.mark.parametrize(
    "text, part",
    [
      ("s16,rez=256", "Did you mean 'res'?"),
      ("s16,res=big", "must be of type int"),
      ("s16,smoke=perhaps", "must be of type bool"),
      ("s16,b16", "option 'b16' of the config is not known"),
    ],
  )
  def test_errors(self, text, part):
    with pytest.raises(ValueError, match=part.replace("?", "\\?")):
      common.parse_arg(text, variant="", res=224, smoke=False)

  @pytest.mark.parametrize(
    "text, want",
    [("s16", "S/16"), ("Ti/16", "Ti/16"), ("so400m14", "So400m/14"),
     ("g14", "g/14"), ("G14", "G/14"), ("h14", "H/14"), ("mu16", "mu/16"),
     ("g-opt16", "g-opt/16")],
  )  # fmt: skip
  def test_variants(self, text, want):
    assert common.variant(text) == want
