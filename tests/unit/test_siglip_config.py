"""configs/siglip.py: options, and the settings of the papers."""

import pytest

from configs import siglip
from vitjax import checks
from vitjax.config import common, resolving

pytest.importorskip("tokenizers")

WORDS = f"tokenizer=bert,vocab={common.CAPTIONS_VOCAB}"


@pytest.mark.parametrize(
  "arg",
  [
    WORDS,
    f"data=captions:/a/b.csv,{WORDS},variant=l16,res=384,loss=contrastive",
    f"{WORDS},batch=4096,accumulate=8",
    "fashion",
    "fashion,loss=contrastive,smoke",
    f"naflex,{WORDS}",
    "naflex,fashion",
    "naflex,smoke",
    "smoke",
  ],
)
def test_options(arg):
  run = resolving.resolve(siglip.get_config(arg))
  checks.check(run)
  assert ("bias_init" in run.model) == (run.loss == "siglip")
  if "accumulate=8" in arg:
    assert (run.input.batch_size, run.accumulation_steps) == (4096, 8)
  if "naflex" in arg:
    assert run.model["image"]["naflex"] and "naflex(" in run.input.pp
  if "res=384" in arg:
    assert "resize(384)" in run.input.pp and run.model["variant"] == "L/16"


def test_published_settings():
  run = resolving.resolve(siglip.get_config(WORDS))
  model, rate = run.model, run.schedule
  assert (model["temperature_init"], model["bias_init"]) == (10, -10)
  assert (run.input.batch_size, run.total.value) == (32_768, 40e9)
  assert (rate.decay, str(rate.warmup)) == ("cosine", "20000 steps")
  wanted = {
    "b2": 0.95,
    "learning_rate": 1e-3,
    "weight_decay": 1e-4,
    "grad_clip_norm": 1.0,
  }
  assert {k: run.optim[k] for k in wanted} == wanted
