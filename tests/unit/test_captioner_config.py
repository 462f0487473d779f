"""Captioners: configs/cap.py, and what is refused, and how that is said."""

import pytest

from configs import cap
from vitjax import checks, models
from vitjax.config import common, resolving
from vitjax.config.schema import ConfigError

pytest.importorskip("tokenizers")

WORDS = f"tokenizer=bert,vocab={common.CAPTIONS_VOCAB}"


@pytest.mark.parametrize(
  "arg",
  [
    WORDS,
    f"data=captions:/a/b.csv,{WORDS},variant=l16,res=384,parallel=0",
    f"{WORDS},batch=4096",
    "fashion",
    "smoke",
  ],
)
def test_options(arg):
  run = resolving.resolve(cap.get_config(arg))
  checks.check(run)
  assert (run.model["parallel_share"] == 0) == ("parallel=0" in arg)
  if "batch=4096" in arg:
    assert run.input.batch_size == 4096
  if "res=384" in arg:
    assert "resize(384)" in run.input.pp and run.model["variant"] == "L/16"


def test_published_settings():
  run = resolving.resolve(cap.get_config(WORDS))
  assert run.model["parallel_share"] == 0.75 and run.model["max_len"] == 64
  assert run.model["decoder_depth"] == 6 and run.model["vocab_size"] == 32_000
  assert (run.input.batch_size, str(run.total)) == (8192, "366500 steps")
  assert str(run.schedule.warmup) == "10000 steps"
  wanted = {
    "name": "adafactor",
    "learning_rate": 1e-3,
    "weight_decay": 1e-4,
    "decay_scale": "schedule",
    "grad_clip_norm": 1.0,
  }
  assert {k: run.optim[k] for k in wanted} == wanted


@pytest.mark.parametrize(
  "path, value, sentence",
  [
    ("loss", "softmax_xent", "which writes captions: use one of caption_xent."),
    ("model.vocab_size", 100, "config.model.vocab_size=100, but the tokenizer"),
    ("input.pp", "value_range(-1, 1)", "must produce texts: add an op such as"),
    ("mixing.mixup_alpha", 0.5, "config.mixing with config.loss="),
    ("evals.captions.type", "zeroshot", "needs a model with two towers"),
  ],
)
def test_what_does_not_fit_is_said(path, value, sentence):
  config = cap.get_config("smoke")
  config.mixing = {}
  *sections, key = path.split(".")
  section = config
  for name in sections:
    section = section[name]
  section[key] = value
  with pytest.raises(ConfigError) as error:
    resolving.resolve(config, checks.problems)
  assert sentence in str(error.value)


@pytest.mark.parametrize(
  "options",
  [{"num_classes": 3}, {"rep_size": True}, {"pool_type": "map"}],
  ids=str,
)
def test_options_that_captions_do_not_train(options):
  with pytest.raises(ValueError, match="captioner"):
    models.create("captioner", variant="mu/16", **options)
