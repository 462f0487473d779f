"""What a config may say, and what is said about one that is wrong."""

import dataclasses
import importlib
import inspect

import ml_collections
import pytest

from vitjax import checks, mixing
from vitjax.config import common, flag, schema


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
  text = message(schema.ConfigError, schema.resolve, c)
  assert "config.input.bach_size is not a key. Did you mean 'batch_size'?" in (
    text
  )
  assert "config.modle is not a key. Did you mean 'model'?" in text
  assert "config.seed='zero' (str) has to be: int." in text
  assert "config.input.batch_size is missing." in text
  assert len(text.splitlines()) == 4


def test_open_sections_are_checked_in_the_same_round():
  c = minimal(
    modle={}, seed="zero", model__widht=3, optim__b3=1, input__pp="crop(2"
  )
  text = message(schema.ConfigError, schema.resolve, c, checks.problems)
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
  text = message(schema.ConfigError, schema.resolve, c, checks.problems)
  assert "config.input.pp is missing." in text and "widht" not in text


@pytest.mark.parametrize(
  "change, part",
  [
    ({"total_epochs": 3}, "config.total_* is given in two units."),
    ({"checkpoint__every_steps": 0}, "has to be a number above 0"),
    ({"schedule__decay": "cosin"}, "config.schedule.decay='cosin' is not one"),
    ({"input__batch_size": True}, "config.input.batch_size=True (bool)"),
    ({"input__batch_size": 0}, "has to be at least 1"),
    ({"accumulation_steps": 3}, "is not a multiple of"),
    ({"mixing": 3}, "config.mixing=3 has to be a section"),
    (
      {"evals": {"train": {"split": "train", "pp": "decode"}}},
      "config.evals.train: its metrics would be called like",
    ),
    ({"mixing__prob": 1.5}, "config.mixing.prob=1.5 has to be in [0, 1]"),
    ({"mixing__mode": "pair"}, "config.mixing.mode='pair' is not one of"),
    ({"input__repeats": 0}, "config.input.repeats=0 has to be at least 1"),
    ({"ema__decay": -0.1}, "config.ema.decay=-0.1 has to be in [0, 1]"),
    ({"sam__rho": -1}, "config.sam.rho=-1 has to be at least 0"),
    ({"init__weight": "x"}, "Did you mean 'weights'?"),
  ],
)
def test_wrong_values(change, part):
  assert part in message(schema.ConfigError, schema.resolve, minimal(**change))


@pytest.mark.parametrize(
  "change, part",
  [
    ({"model__name": "vitt"}, "Did you mean 'vit'?"),
    ({"model__variant": "X/16"}, "variant='X/16' is not"),
    ({"model__widht": 3}, "config.model.widht is not a key. Did you mean"),
    ({"model__depth": "many"}, "config.model.depth='many' (str) has to be"),
    ({"model__posemb": "sine"}, "posemb='sine' is not one of"),
    ({"optim__name": "adamw2"}, "is not an optimizer. Known: adam"),
    ({"optim__momentum": 0.9}, "config.optim.momentum is not a key"),
    ({"optim__decay_scale": "lr"}, "config.optim.decay_scale='lr'"),
    ({"loss": "hinge"}, "config.loss='hinge' is not one of"),
    ({"input__pp": "value_rang(-1, 1)"}, "value_range"),
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
      "config.evals.v.pp='normalize' normalises images otherwise than",
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
  run = schema.resolve(minimal(**change))
  assert part in message(schema.ConfigError, checks.check, run)


def test_a_minimal_config_passes():
  checks.check(schema.resolve(minimal()))


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
  run = schema.resolve(c)
  assert str(run.total) == "3 epochs"
  assert str(run.schedule.warmup) == "9 steps"
  assert str(run.checkpoint.every) == "1 epochs"


def test_published_recipe_to_the_letter():
  run = schema.resolve(
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
  a = schema.to_dict(schema.resolve(minimal()))
  b = schema.to_dict(schema.resolve(minimal(optim__learning_rate=2e-3)))
  a["input"] = {"prefetch": 2, "cache": False}
  b["input"] = {"prefetch": 4, "cache": True}
  assert schema.differences(a, b) == ["optim.learning_rate: 0.001 -> 0.002"]
  assert schema.differences(a, a) == []


def test_every_field_of_the_schema_has_a_reader():
  """A key that no code reads would be accepted and ignored."""
  import pathlib

  package = pathlib.Path(schema.__file__).parents[1]
  code = "\n".join(
    f.read_text() for f in package.rglob("*.py") if f.name != "schema.py"
  )
  for cls in (
    schema.RunConfig,
    schema.Input,
    schema.Init,
    schema.Ema,
    schema.Sam,
    schema.Schedule,
    schema.Mesh,
    schema.Eval,
    schema.Checkpoint,
    schema.Report,
  ):
    for field in dataclasses.fields(cls):
      assert f".{field.name}" in code, f"{cls.__name__}.{field.name}"
  fields = {f.name for f in dataclasses.fields(schema.Mixing)}
  read = inspect.signature(mixing.augment).parameters
  assert fields | {"image", "labels", "key", "target_threshold"} == set(read)


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
