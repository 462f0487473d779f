"""configs/lit.py and what is refused of a run on images and texts."""

import pytest

from configs import lit
from vitjax import checks
from vitjax.config import common, resolving, schema
from vitjax.data import tokenizers

pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def vocab(tmp_path_factory):
  path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
  path.write_text("[PAD]\n[UNK]\n[CLS]\na\n")
  return path


@pytest.mark.parametrize(
  "arg",
  [
    "vocab=VOCAB",
    "coco_captions,vocab=VOCAB,loss=contrastive,steps=7,batch=64",
    "data=captions:/a/b.csv,vocab=VOCAB,weights=runs/a,text_weights=b.npz",
    "variant=l16,vocab=VOCAB",
    "fashion",
    "fashion,loss=contrastive,weights=/a/b.npz,smoke",
    "smoke",
  ],
)
def test_options(arg, vocab):
  run = resolving.resolve(lit.get_config(arg.replace("VOCAB", str(vocab))))
  checks.check(run)
  assert ("bias_init" in run.model) == (run.loss == "siglip")
  if "steps=7" in arg:
    assert run.total == schema.Duration(7, "steps")
    assert run.input.batch_size == 64
  if "text_weights" in arg:
    assert run.init.weights == {"img": "runs/a", "txt": "b.npz"}


def test_published_settings(vocab):
  run = resolving.resolve(lit.get_config(f"vocab={vocab}"))
  assert run.model["temperature_init"] == 10
  assert run.model["bias_init"] == -2.71
  assert run.optim["learning_rate"] == 1e-3
  assert run.optim["weight_decay"] == 0.01
  assert run.optim["freeze"] == ("img/.*",)
  assert (run.input.batch_size, run.total.value) == (512, 5000)


def test_the_vocabulary_has_every_word_of_the_captions():
  names = "T-shirt/top Trouser Pullover Dress Coat Sandal Shirt Sneaker Bag"
  names = [*names.split(), "Ankle boot"]
  texts = [t.format(name) for t in common.CAPTIONS for name in names]
  tokenizer = tokenizers.bert(common.CAPTIONS_VOCAB, max_len=16)
  with open(common.CAPTIONS_VOCAB, encoding="utf-8") as file:
    pieces = file.read().splitlines()
  assert pieces[0] == "[PAD]" and len({*pieces}) == len(pieces) <= 256
  ids = tokenizer(texts)
  assert len({tuple(row) for row in ids}) == len(texts)
  found = {pieces[i] for i in ids.ravel()}
  assert "[UNK]" not in found and not any(x.startswith("##") for x in found)
  assert (ids[:, -1] == 0).all()  # nothing was cut off
  zoo = [pieces[i] for i in tokenizer(["zoo"])[0, :4]]
  assert zoo == ["[CLS]", "z", "##o", "##o"]


def changed(**overrides):
  changed = lit.get_config("smoke")
  changed.update_from_flattened_dict(overrides)
  return resolving.resolve(changed)


VIT = {"name": "vit", "variant": "mu/16"}


@pytest.mark.parametrize(
  ("overrides", "message"),
  [
    ({"loss": "softmax_xent"}, "'softmax_xent' does not fit .*two_tower', whi"),
    ({"model": VIT}, r"loss='siglip' does not fit config.model.name='vit'"),
    ({"loss": "clip"}, "not one of softmax_xent, .*, contrastive, siglip, "),
    ({"num_classes": 10}, "config.num_classes with config.loss='siglip'"),
    ({"class_weights": "balanced"}, "config.class_weights with config.loss="),
    ({"mixing": {"mixup_alpha": 0.2}}, "config.mixing with config.loss"),
    ({"input.pp": "flip_lr"}, "must produce texts: add an op such as tok"),
    ({"model.text.vocab_size": 99}, "text.vocab_size=99, .* has 169 ids. Use"),
    (
      {"evals.zeroshot.type": "classification"},
      "evals.zeroshot.type='classification' needs a model with class logits",
    ),
    ({"evals.zeroshot.tokenizer": 1}, "evals.zeroshot.tokenizer is not a key"),
  ],
)
def test_refusals(overrides, message):
  with pytest.raises(schema.ConfigError, match=message):
    checks.check(changed(**overrides))


def test_a_model_of_images_has_no_zero_shot():
  run = changed(
    **{"loss": "softmax_xent", "model": VIT, "evals.retrieval": None}
  )
  with pytest.raises(schema.ConfigError, match="needs a model with two towers"):
    checks.check(run)
