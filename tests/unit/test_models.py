"""What `models.create` refuses, the contract of models, and own modules."""

import sys
import textwrap

import jax
import numpy as np
import pytest

from configs import transfer
from vitjax import checks, models, optim
from vitjax.config import resolving, schema
from vitjax.models import base, common, contract

nan, inf = float("nan"), float("inf")


@pytest.mark.parametrize(
  "name, options, sentence",
  [
    ("vit", {"depth": -2}, "depth=-2 must be at least 0."),
    ("vit", {"patch_size": 0}, "patch_size=0 must be at least 1."),
    ("vit", {"dropout_rate": 2}, "dropout_rate=2 must be at least 0 and bel"),
    ("vit", {"dropout_rate": nan}, "dropout_rate=nan must be finite"),
    ("vit", {"drop_path_rate": 3}, "drop_path_rate=3 must be"),
    ("vit", {"num_heads": 0}, "num_heads=0 must be at least 1."),
    ("vit", {"num_registers": -1}, "num_registers=-1 must be at least 0."),
    ("vit", {"layer_norm_eps": 0}, "layer_norm_eps=0 must be above 0."),
    ("vit", {"head_bias_init": inf}, "head_bias_init=inf must be finite."),
    ("vit", {"stem": (3, 0)}, "stem=(3, 0): each number must be at least 1."),
    ("vit", {"width": "64"}, "width='64' (str) must be int."),
    ("vit", {"width": 64}, "width=64 is not a multiple of num_heads=12."),
    (
      "vit",
      {"width": 72, "num_heads": 8, "differential": True},
      "width=72 is not a multiple of num_heads=16.",
    ),
    ("text", {"attention": "flash"}, "attention='flash' is not one of auto"),
    ("text", {"remat": "some"}, "remat='some' is not one of none"),
    ("text", {"vocab_size": "16000"}, "vocab_size='16000' (str) must be int."),
    ("text", {"width": 100}, "width=100 is not a multiple of num_heads=8."),
    ("bert", {"width": 100}, "width=100 is not a multiple of num_heads=12."),
    ("bert", {"num_segments": 0}, "num_segments=0 must be at least 1."),
    (
      "mixer",
      {"gelu": "exact"},
      "gelu='exact' is not one of tanh, erf, quick.",
    ),
    ("mixer", {"tokens_mlp_dim": 0}, "tokens_mlp_dim=0 must be"),
    ("nfnet", {"widths": (128,)}, "each number must be at least 256."),
    ("convnext", {"depths": (3, -1)}, "each number must be at least 1."),
    ("resnet", {"width_factor": 0}, "width_factor=0 must be at least 1."),
    ("two_tower", {"temperature_init": 0}, "temperature_init=0 must be above"),
    ("two_tower", {"text_model": "gpt"}, "text_model='gpt' is not one of"),
    (
      "two_tower",
      {"text": {"vocab_size": "x"}, "image": {"depth": -1}},
      "image.depth=-1 must be at least 0.\n"
      "text.vocab_size='x' (str) must be int.",
    ),
    ("two_tower", {"image": {"dept": 2}}, "'image.dept' is not an option of"),
    ("..", {}, "'..' is not a model."),
    (".vit", {}, "'.vit' is not a model."),
    ("a..b", {}, "'a..b' is not a model."),
    ("no.such.module", {}, "model 'no.such.module' cannot be imported: No mod"),
  ],
  ids=str,
)
def test_create_refuses(name, options, sentence):
  with pytest.raises(ValueError) as error:
    models.create(name, **options)
  assert sentence in str(error.value)


def test_all_that_is_wrong_is_said_at_once():
  with pytest.raises(ValueError) as error:
    models.create("vit", depth=-1, dpth=1, gelu="relu")
  assert len(str(error.value).splitlines()) == 3


OWN = """
  import flax.linen as nn
  from vitjax.models.base import ImageModel

  class Model({base}):
    width: int = 4

    @nn.compact
    def __call__(self, image, train=False):
      return nn.Dense(self.width, name="head")(image.mean((1, 2))), {{}}
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
  """Writes the module own_package.own_model."""
  monkeypatch.syspath_prepend(tmp_path)
  (tmp_path / "own_package").mkdir()

  def write(text):
    file = tmp_path / "own_package" / "own_model.py"
    file.write_text(textwrap.dedent(text))
    return "own_package.own_model"

  yield write
  for name in [x for x in sys.modules if x.split(".")[0] == "own_package"]:
    del sys.modules[name]


def test_a_model_of_ones_own(own):
  name = own(OWN.format(base="ImageModel"))
  model = models.create(name, width=3)
  (image,) = model.example_inputs((8, 6), channels=1)
  assert image.shape == (1, 8, 6, 1)
  params = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
  assert params["head"]["kernel"].shape == (1, 3)
  assert model.towers() == {}
  with pytest.raises(ValueError, match=r"layer_decay: .*does not say what its"):
    models.layers(model, {"head/kernel": (1, 3)})
  with pytest.raises(ValueError, match="no function `decode_variant`"):
    models.create(name, variant="S")


@pytest.mark.parametrize(
  "text, sentence",
  [
    ("", "the module 'own_package.own_model' has no class `Model`"),
    (
      OWN.format(base="nn.Module"),
      "`Model` of 'own_package.own_model' has no `example_inputs`, `towers`, "
      "`layers`. Derive it from vitjax.models.base.ImageModel",
    ),
    ("Model = 3", "`Model` of 'own_package.own_model' is 3, not a flax.linen"),
    ("import nothing.such", "cannot be imported: No module named 'nothing'"),
  ],
)
def test_a_module_that_breaks_the_contract(own, text, sentence):
  with pytest.raises(ValueError) as error:
    models.create(own(text))
  assert sentence in str(error.value)


@pytest.mark.parametrize("family", sorted(models.FAMILIES))
def test_every_family_obeys_the_contract(family):
  model = models.create(family)
  base.check(type(model), family)
  assert isinstance(model, contract.Model)
  assert sorted(model.towers()) == ["img", "txt"] * (family == "two_tower")
  inputs = model.example_inputs((256, 256))
  texts = {"bert", "captioner", "text", "two_tower"}
  assert [x.ndim for x in inputs] == [
    *[4] * (family not in ("bert", "text")),
    *[2] * (family in texts),
  ]


def minimal(**sections):
  return {
    "total_steps": 10,
    "input": {"data": "fake", "batch_size": 8, "pp": "decode"},
    "model": {"name": "vit", "variant": "mu/16"},
    "optim": {"name": "adam", "learning_rate": 0.1},
    **sections,
  }


@pytest.mark.parametrize(
  "model, sentence",
  [
    ({"name": "vit", "depth": -2}, "config.model.depth=-2 must be at least 0."),
    ({"name": ".."}, "config.model.name: '..' is not a model."),
    ({"name": 3}, "config.model.name"),
    ({"name": "vitjax.losses"}, "'vitjax.losses' has no class `Model`"),
  ],
  ids=str,
)
def test_the_check_of_a_config_says_it(model, sentence):
  with pytest.raises(schema.ConfigError) as error:
    resolving.resolve(minimal(model=model), checks.problems)
  assert sentence in str(error.value)


def test_the_text_tower_is_checked_before_its_tokenizer():
  """Its wrong vocabulary is no traceback."""
  text = {"vocab_size": "16000"}
  model = {"name": "two_tower", "image": {"variant": "mu/16"}, "text": text}
  with pytest.raises(schema.ConfigError) as error:
    resolving.resolve(minimal(model=model, loss="siglip"), checks.problems)
  assert "text.vocab_size='16000' (str) must be int." in str(error.value)


@pytest.mark.parametrize(
  "name, variant, near", [("vit", "mu/8", "40x40"), ("convnext", "T", "32x32")]
)
def test_a_dropped_border_is_named_once(name, variant, near, caplog):
  common.warn_of_border.cache_clear()
  model = models.create(name, variant=variant)

  def warnings_for(h, w):
    caplog.clear()
    image = np.zeros((1, h, w, 3), np.float32)
    jax.eval_shape(model.init, jax.random.key(0), image)
    return [r.message for r in caplog.records if "drops" in r.message]

  (said,) = warnings_for(39, 37)
  assert "drops 7 rows and 5 columns of each image of 39x37" in said
  assert f"such as {near}." in said
  assert not warnings_for(39, 37)
  assert not warnings_for(64, 32)


@pytest.mark.parametrize(
  "name, option, sentence",
  [
    ("adam", {"b1": 1}, "config.optim.b1=1 must be at least 0 and below 1."),
    ("adamw", {"b2": 2}, "config.optim.b2=2 must be at least 0 and below 1."),
    ("lamb", {"eps": -1}, "config.optim.eps=-1 must be above 0."),
    ("sgd", {"momentum": nan}, "config.optim.momentum=nan must be finite"),
    ("adafactor", {"min_dim": 0}, "config.optim.min_dim=0 must be at least 1."),
    ("adam", {"weight_decay": inf}, "config.optim.weight_decay=inf must be fi"),
    ("adam", {"layer_decay": 1.5}, "must be above 0 and at most 1."),
    (
      "adam",
      {"learning_rate_multipliers": [["head/.*", 0]]},
      "config.optim.learning_rate_multipliers=[['head/.*', 0]]: each number "
      "must be above 0.",
    ),
  ],
  ids=str,
)
def test_options_of_an_optimizer_have_ranges(name, option, sentence):
  section = {"name": name, "learning_rate": 0.1, **option}
  with pytest.raises(ValueError) as error:
    optim.make_optimizer(**section, schedule=lambda step: 1.0)
  assert sentence in str(error.value)
  with pytest.raises(schema.ConfigError) as error:
    resolving.resolve(minimal(optim=section), checks.problems)
  assert sentence in str(error.value)


def test_the_names_of_the_field_are_known():
  assert optim.OPTIMIZERS["adamw"] is optim.OPTIMIZERS["adam"]
  assert optim.OPTIMIZERS["momentum"] is optim.OPTIMIZERS["sgd"]
  resolving.resolve(
    minimal(optim={"name": "adamw", "learning_rate": 0.1, "weight_decay": 0.1}),
    checks.problems,
  )
  for name in ("adam", "adamw", "momentum", "sgd"):
    made = transfer.get_config(f"optim={name}").optim.name
    assert optim.OPTIMIZERS[made] is optim.OPTIMIZERS[name], name


def test_transfer_of_networks_with_batch_norm():
  data = "dataset=folder:images"
  config = transfer.get_config(f"weights=efficientnet-lite0,{data}")
  assert config.optim.learning_rate == pytest.approx(1e-3)
  assert config.model.head_zero_init  # else the first loss is far above log(n)
  config = transfer.get_config(f"weights=regnety_032.ra_in1k,{data},probe")
  assert config.optim.learning_rate == pytest.approx(1e-2)
  config = transfer.get_config(f"weights=convnext_tiny_22k_224,{data}")
  assert config.optim.learning_rate == pytest.approx(1e-4)
  config = transfer.get_config(f"weights=efficientnet-lite0,{data},lr=3e-4")
  assert config.optim.learning_rate == pytest.approx(3e-4)
