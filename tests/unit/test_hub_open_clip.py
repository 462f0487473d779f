"""Repositories in OpenCLIP's form, from the fake hub."""

import io

import jax
import numpy as np
import pytest

import vitjax
from tests import fake_hub, hub_models
from vitjax import models, trees
from vitjax.weights import published
from vitjax.weights.download import DownloadError

NAME = "hf:owner/model"
# As published, https://huggingface.co/timm/ViT-B-16-SigLIP2
SIGLIP = {
  "embed_dim": 768,
  "init_logit_bias": -10,
  "custom_text": True,
  "vision_cfg": {
    "image_size": 224,
    "timm_model_name": "vit_base_patch16_siglip_224",
    "timm_model_pretrained": False,
    "timm_pool": "map",
    "timm_proj": "none",
  },
  "text_cfg": {
    "context_length": 64,
    "vocab_size": 256_000,
    "hf_tokenizer_name": "owner/words",
    "tokenizer_kwargs": {"clean": "canonicalize"},
    "width": 768,
    "heads": 12,
    "layers": 12,
    "no_causal_mask": True,
    "proj_bias": True,
    "pool_type": "last",
    "norm_kwargs": {"eps": 1e-6},
    "act_kwargs": {"approximate": "tanh"},
  },
}
SQUASH = {
  "mean": [0.5] * 3,
  "std": [0.5] * 3,
  "interpolation": "bicubic",
  "resize_mode": "squash",
}


@pytest.fixture
def hub(tmp_path, monkeypatch):
  with fake_hub.serve() as hub:
    fake_hub.connect(hub, tmp_path, monkeypatch)
    yield hub


def config(model, pictures=SQUASH):
  content = {"model_cfg": model, "preprocess_cfg": pictures}
  return {"open_clip_config.json": hub_models.encode(content)}


def changed(**parts):
  """`SIGLIP` with other fields in its parts."""
  return {
    **SIGLIP,
    **{name: {**SIGLIP[name], **fields} for name, fields in parts.items()},
  }


def words(tokenizer="GemmaTokenizer", pad="<pad>"):
  about = {"tokenizer_class": tokenizer, "pad_token": pad}
  return {
    "tokenizer_config.json": hub_models.encode(about),
    "tokenizer.json": b"{}",
  }


def check_clip(run):
  want = trees.flatten(hub_models.random_params(hub_models.clip()))
  got = trees.flatten(run.params)
  assert got.keys() == want.keys()
  for name, x in want.items():
    np.testing.assert_array_equal(got[name], x, err_msg=name)


def test_a_clip_is_loaded(hub, tmp_path):
  commit = hub.add("owner/model", hub_models.open_clip(tmp_path))
  run = vitjax.load(NAME)
  assert run.source == f"{NAME}@{commit}"
  check_clip(run)
  assert (run.image_size, run.metadata["loss"]) == ((32, 32), "contrastive")
  assert run.preprocess == (
    'decode|resize_small(32, "bicubic", antialias=True)|central_crop(32)|'
    "normalize((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))"
  )
  image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
  batch = run.prepare(image)[None]
  ids = run.tokenizer(["an ant"])
  assert ids.shape == (1, 11) and ids[0, 0] == 513 and ids.max() == 514
  got = run.similarity(batch, ["an ant", "a bee"])
  # The model of the fields written out, on the same weights.
  i, t, out = jax.jit(hub_models.clip().apply)(
    {"params": hub_models.random_params(hub_models.clip())},
    batch,
    run.tokenizer(["an ant", "a bee"]),
  )
  want = np.asarray(out["t"]) * (np.asarray(i) @ np.asarray(t).T)
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_weights_of_pytorch(hub, tmp_path):
  torch = pytest.importorskip("torch")
  files = hub_models.open_clip(tmp_path)
  del files["open_clip_model.safetensors"]
  arrays = hub_models.arrays("open_clip", hub_models.clip())
  buffer = io.BytesIO()
  torch.save({n: torch.tensor(x) for n, x in arrays.items()}, buffer)
  hub.add(
    "owner/model", {**files, "open_clip_pytorch_model.bin": buffer.getvalue()}
  )
  check_clip(vitjax.load(NAME))


def test_the_config_of_another_library_decides(hub, tmp_path):
  both = hub_models.open_clip(tmp_path) | hub_models.timm(tmp_path)
  hub.add("owner/model", both)
  assert vitjax.load(NAME).class_names == ("ant", "bee", "cat")
  both["config.json"] = b'{"license": "mit"}'  # says nothing of the weights
  hub.add("owner/model", both)
  check_clip(vitjax.load(NAME))
  hub.add("owner/model", {"config.json": b"{}"})
  with pytest.raises(ValueError, match=r"there is no open_clip_config\.json"):
    vitjax.load(NAME)


@pytest.mark.parametrize(
  ("tokenizer", "name", "pad"),
  [
    ("GemmaTokenizer", "open_clip_gemma", "<pad>"),
    ("T5Tokenizer", "open_clip_siglip", "</s>"),
  ],
)
def test_siglip(hub, tokenizer, name, pad):
  hub.add("owner/model", config(SIGLIP))
  commit = hub.add("owner/words", words(tokenizer, pad))
  about = published.describe(NAME)
  assert about["preprocess"] == (
    'decode|resize(224, "bicubic", antialias=True)|value_range(-1, 1)'
  )
  assert about["tokenizer"]["name"] == name
  assert about["tokenizer"]["max_len"] == 64
  assert f"/{commit}/tokenizer.json" in about["tokenizer"]["vocab"]
  assert about["loss"] == "siglip"
  model = models.create(**about["model"])
  # timm's tower has the exact GELU here, and Google's the approximate one.
  want = models.create("SigLIP2 B/16 224")
  towers = model.towers(), want.towers()
  exact = {"scan_layers": False, "gelu": "erf"}
  for ours, theirs, more in (
    (towers[0]["img"], towers[1]["img"], exact),
    (towers[0]["txt"], towers[1]["txt"], {"scan_layers": False}),
  ):
    assert ours.clone(mlp_dim=None) == theirs.clone(mlp_dim=None, **more)
    assert ours.mlp_dim == theirs.mlp_dim == 3072
  assert model.bias_init == want.bias_init == -10


@pytest.mark.parametrize(
  ("model", "message"),
  [
    (
      changed(
        vision_cfg={"timm_model_name": "vit_base_patch16_siglip_gap_224"}
      ),
      "timm_model_name='vit_base_patch16_siglip_gap_224' is not implemented",
    ),
    (changed(vision_cfg={"timm_proj": "linear"}), "timm_proj='linear' is not"),
    (changed(vision_cfg={"image_size": 256}), "image_size=256, and vit_base"),
    (changed(text_cfg={"hf_model_name": "xlm-roberta-base"}), "hf_model_name="),
    (changed(text_cfg={"pool_type": "eos"}), "pool_type='eos' is not"),
    (changed(text_cfg={"tokenizer_kwargs": {}}), "clean='whitespace' is not"),
    (changed(text_cfg={"rope": True}), "text_cfg: rope cannot be read here"),
    ({**SIGLIP, "multimodal_cfg": {}}, "multimodal_cfg cannot be read here"),
    (
      {**hub_models.OPEN_CLIP, "vision_cfg": {"layers": [3, 4, 6, 3]}},
      r"layers=(3, 4, 6, 3) should be like 12",
    ),
    (
      {**hub_models.OPEN_CLIP, "vision_cfg": {"no_ln_pre": True}},
      "no_ln_pre=True is not implemented here. Known: False",
    ),
    (
      {**hub_models.OPEN_CLIP, "text_cfg": {"norm_kwargs": {"bias": False}}},
      "norm_kwargs: bias cannot be read here",
    ),
  ],
)
def test_what_is_not_read(hub, model, message):
  hub.add("owner/model", config(model) | {"merges.txt": b"#version: 0.2"})
  hub.add("owner/words", words())
  with pytest.raises(ValueError) as error:
    vitjax.load(NAME)
  assert message in str(error.value)
  assert "open_clip_config.json" in str(error.value)
  assert not [path for _, path in hub.requests if "open_clip_model" in path]


def test_other_images_and_tokenizers_are_refused(hub):
  hub.add("owner/words", words("BertTokenizer"))
  hub.add("owner/model", config(SIGLIP))
  with pytest.raises(ValueError, match="tokenizer_class='BertTokenizer' is"):
    published.describe(NAME)
  hub.add("owner/words", words("T5Tokenizer", "<pad>"))
  with pytest.raises(ValueError, match=r"pad_token='<pad>' is not"):
    published.describe(NAME)
  hub.add("owner/words", words())
  hub.add("owner/model", config(SIGLIP, {**SQUASH, "resize_mode": "longest"}))
  with pytest.raises(ValueError, match="resize_mode='longest' is not"):
    published.describe(NAME)


def test_a_repository_without_a_vocabulary_has_that_of_clip(
  hub, tmp_path, monkeypatch
):
  files = hub_models.open_clip(tmp_path)
  vocab = tmp_path / "bpe.txt"
  vocab.write_bytes(files.pop("merges.txt"))
  hub.add("owner/model", files)
  monkeypatch.setattr(
    "vitjax.weights.download.fetch_any", lambda files, name: vocab
  )
  assert published.describe(NAME)["tokenizer"]["vocab"] == str(vocab)


def test_a_repository_without_weights(hub, tmp_path):
  files = hub_models.open_clip(tmp_path)
  del files["open_clip_model.safetensors"]
  hub.add("owner/model", files)
  with pytest.raises(DownloadError, match=r"none of the files open_clip_model"):
    vitjax.load(NAME)
