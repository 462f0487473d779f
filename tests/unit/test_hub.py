"""Models of the hub: transfers, checksums, and what config.json says."""

import dataclasses
import hashlib
import io
import os
import pathlib

import huggingface_hub
import huggingface_hub.constants
import jax
import numpy as np
import pytest

import vitjax
from configs import transfer
from tests import fake_hub, hub_models
from vitjax import models, pretrained, start, trees, weights
from vitjax.config import resolving
from vitjax.config.schema import ConfigError
from vitjax.finetune import choosing
from vitjax.graphs import forward
from vitjax.pareto import benchmark
from vitjax.weights import fitting, layouts, published
from vitjax.weights.download import DownloadError
from vitjax.weights.hub import repository, transformers
from vitjax.weights.hub.fields import Fields

NAME = "hf:owner/model"


@pytest.fixture
def hub(monkeypatch, tmp_path):
  with fake_hub.serve() as server:
    fake_hub.connect(server, tmp_path, monkeypatch)
    yield server


def check_params(run, want):
  for name, x in trees.flatten(want).items():
    np.testing.assert_array_equal(trees.flatten(run.params)[name], x, name)


def test_a_repository_of_timm(hub, tmp_path):
  commit = hub.add("owner/model", hub_models.timm(tmp_path))
  run = vitjax.load(NAME)
  assert run.preprocess == (
    'decode|resize_small(35, "bicubic", antialias=True)|central_crop(32)'
    "|value_range(-1, 1)"
  )
  assert (run.image_size, run.class_names) == ((32, 32), ("ant", "bee", "cat"))
  assert run.source == run.metadata["origin"] == f"{NAME}@{commit}"
  check_params(run, hub_models.random_params(hub_models.vit()))
  assert (run.model.gelu, run.model.width) == ("erf", 16)


def test_a_repository_of_transformers(hub, tmp_path):
  hub.add("owner/model", hub_models.transformers(tmp_path))
  run = vitjax.load(NAME)
  assert run.preprocess == "decode|resize(32, antialias=True)|normalize"
  assert run.class_names == ("ant", "bee", "cat")
  check_params(run, hub_models.random_params(hub_models.vit()))
  assert run.model.layer_norm_eps == 1e-12


def test_a_model_without_classes(hub, tmp_path):
  files = hub_models.transformers(tmp_path, architectures=["ViTModel"])
  flat = {
    name.removeprefix("vit."): x
    for name, x in hub_models.arrays("hf_vit").items()
    if not name.startswith("classifier")
  }
  hub.add(
    "owner/model",
    {**files, "model.safetensors": hub_models.safetensors(flat, tmp_path)},
  )
  run = vitjax.load(NAME)
  assert (run.model.num_classes, run.model.rep_size) == (None, False)
  flat["pooler.dense.weight"] = np.eye(16, dtype=np.float32)
  flat["pooler.dense.bias"] = np.zeros(16, np.float32)
  hub.add(
    "owner/model",
    {**files, "model.safetensors": hub_models.safetensors(flat, tmp_path)},
  )
  pooled = vitjax.load(NAME)
  image = np.random.default_rng(0).normal(size=(1, 32, 32, 3))
  image = image.astype(np.float32)
  np.testing.assert_allclose(
    pooled.features(image), np.tanh(run.features(image)), rtol=1e-5, atol=1e-6
  )


def test_revisions(hub, tmp_path):
  files = hub_models.timm(tmp_path)
  old = hub.add("owner/model", files, ref="v1")
  changed = hub_models.timm(tmp_path, label_names=["x", "y", "z"])
  new = hub.add("owner/model", changed)
  for revision, commit in (("v1", old), ("main", new), (old, old)):
    run = vitjax.load(f"{NAME}@{revision}")
    assert run.source == f"{NAME}@{commit}"
    assert run.class_names[0] == ("ant" if commit == old else "x")
  with pytest.raises(DownloadError, match="has no revision 'v2'"):
    vitjax.load(f"{NAME}@v2")


def test_what_other_programs_fetched_is_found_offline(
  hub, tmp_path, monkeypatch
):
  files = hub_models.timm(tmp_path)
  commit = hub.add("owner/model", files)
  for name in files:
    huggingface_hub.hf_hub_download("owner/model", name)
  monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
  hub.requests.clear()
  assert vitjax.load(NAME).source == f"{NAME}@{commit}"
  assert not hub.requests
  with pytest.raises(DownloadError, match="HF_HUB_OFFLINE is set"):
    vitjax.load("hf:owner/other")


def test_a_pinned_name_that_is_cached_asks_nothing(hub, tmp_path):
  commit = hub.add("owner/model", hub_models.timm(tmp_path))
  vitjax.load(NAME)
  hub.requests.clear()
  vitjax.load(f"{NAME}@{commit}")
  assert not hub.requests


def test_private_repositories(hub, tmp_path, monkeypatch):
  hub.add("owner/model", hub_models.timm(tmp_path), private=True)
  with pytest.raises(DownloadError, match="no repository 'owner/model', or it"):
    vitjax.load(NAME)
  monkeypatch.setenv("HF_TOKEN", "hf_wrong")
  with pytest.raises(DownloadError, match="set HF_TOKEN to a token that may"):
    vitjax.load(NAME)
  monkeypatch.setenv("HF_TOKEN", fake_hub.TOKEN)
  assert vitjax.load(NAME).class_names
  monkeypatch.delenv("HF_TOKEN")
  (tmp_path / "token").write_text(fake_hub.TOKEN)
  hub.add("owner/other", hub_models.timm(tmp_path), private=True)
  assert vitjax.load("hf:owner/other").class_names


def test_gated_repositories(hub, tmp_path):
  hub.add("owner/model", hub_models.timm(tmp_path), gated=True)
  with pytest.raises(DownloadError, match="its owner must grant access first"):
    vitjax.load(NAME)


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_is_busy_once(hub, tmp_path, status):
  files = hub_models.timm(tmp_path)
  hub.add("owner/model", files)
  sha256 = hashlib.sha256(files["model.safetensors"]).hexdigest()
  hub.errors = {"/config.json": (status, 1), "/model.safetensors": (status, 1)}
  hub.errors[f"/objects/{sha256}"] = 429, 1
  assert vitjax.load(NAME).class_names


def test_a_server_that_stays_busy(hub, tmp_path):
  hub.add("owner/model", hub_models.timm(tmp_path))
  hub.errors = {"/config.json": (503, 1000)}
  with pytest.raises(DownloadError, match=r"config\.json could not be transf"):
    vitjax.load(NAME)


def test_a_download_that_is_cut(hub, tmp_path):
  files = hub_models.timm(tmp_path)
  hub.add("owner/model", files)
  sha256 = hashlib.sha256(files["model.safetensors"]).hexdigest()
  hub.cuts = {f"/objects/{sha256}"}
  with pytest.raises(DownloadError, match="could not be transferred"):
    vitjax.load(NAME)
  hub.cuts.clear()
  assert vitjax.load(NAME).class_names


def test_a_download_with_another_checksum(hub, tmp_path):
  files = hub_models.timm(tmp_path)
  hub.add("owner/model", files)
  good = files["model.safetensors"]
  sha256 = hashlib.sha256(good).hexdigest()
  bad = bytearray(good)
  bad[-1] ^= 1  # one bit of the last weight
  hub.swapped = {sha256: bytes(bad)}
  with pytest.raises(DownloadError, match=f"should have {sha256}"):
    vitjax.load(NAME)
  hub.swapped.clear()
  assert vitjax.load(NAME).class_names


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_damaged_file_of_the_cache(hub, tmp_path, name, monkeypatch):
  files = hub_models.timm(tmp_path)
  commit = hub.add("owner/model", files)
  vitjax.load(NAME)
  [file] = (tmp_path / "hub").rglob(f"snapshots/{commit}/{name}")
  blob = file.resolve()

  def damage():
    data = bytearray(blob.read_bytes())
    data[-2] ^= 1
    blob.write_bytes(data)

  damage()
  monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
  with pytest.raises(DownloadError, match="should have") as error:
    vitjax.load(NAME)
  assert os.fspath(blob) in str(error.value)
  monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
  assert vitjax.load(NAME).class_names  # fetched again
  assert file.read_bytes() == files[name]


def test_weights_of_pytorch_only(hub, tmp_path):
  torch = pytest.importorskip("torch")
  files = hub_models.timm(tmp_path)
  arrays = hub_models.arrays("timm_vit")
  buffer = io.BytesIO()
  torch.save({n: torch.tensor(x) for n, x in arrays.items()}, buffer)
  hub.add(
    "owner/model",
    {
      "config.json": files["config.json"],
      "pytorch_model.bin": buffer.getvalue(),
    },
  )
  run = vitjax.load(NAME)
  check_params(run, hub_models.random_params(hub_models.vit()))


class Harmful:
  def __reduce__(self):
    return os.mkdir, ("harm",)


def test_weights_of_pytorch_run_no_code(hub, tmp_path, monkeypatch):
  torch = pytest.importorskip("torch")
  monkeypatch.chdir(tmp_path)
  buffer = io.BytesIO()
  torch.save({"head.weight": Harmful()}, buffer)
  hub.add(
    "owner/model",
    {
      "config.json": hub_models.encode(hub_models.TIMM),
      "pytorch_model.bin": buffer.getvalue(),
    },
  )
  with pytest.raises(ValueError, match="tensors only"):
    vitjax.load(NAME)
  assert not pathlib.Path("harm").exists()


def test_weights_in_several_files(hub, tmp_path):
  files = hub_models.timm(tmp_path)
  arrays = hub_models.arrays("timm_vit")
  names = sorted(arrays)
  parts, index = {}, {}
  for i, chosen in enumerate((names[::2], names[1::2])):
    part = f"model-{i}.safetensors"
    parts[part] = hub_models.safetensors(
      {n: arrays[n] for n in chosen}, tmp_path
    )
    index |= dict.fromkeys(chosen, part)
  listed = hub_models.encode({"metadata": {}, "weight_map": index})
  del files["model.safetensors"]
  files |= {"model.safetensors.index.json": listed, **parts}
  hub.add("owner/model", files)
  check_params(vitjax.load(NAME), hub_models.random_params(hub_models.vit()))
  outside = dict.fromkeys(names, "../../model.safetensors")
  hub.add(
    "owner/model",
    {
      **files,
      "model.safetensors.index.json": hub_models.encode(
        {"weight_map": outside}
      ),
    },
  )
  with pytest.raises(ValueError, match="this index must say"):
    vitjax.load(NAME)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (
      {"architecture": "vit_bas_patch16_224"},
      "architecture='vit_bas_patch16_224' is not implemented here. Did you "
      "mean 'vit_base_patch16_224'",
    ),
    (
      {"model_args": {"norm_layer": "rmsnorm"}},
      "model_args: norm_layer of a model of family 'vit' cannot be read here",
    ),
    (
      {"model_args": {"act_layer": "relu"}},
      "model_args: act_layer='relu' is not implemented here. Known: 'gelu'",
    ),
    (
      {"model_args": {"img_size": 48}},
      "model_args has img_size=48, and pretrained_cfg input_size=",
    ),
    (
      {"pretrained_cfg": {"crop_mode": "border"}},
      "pretrained_cfg: crop_mode='border' is not implemented here. Known: "
      "'center', 'squash'",
    ),
    ({"label_names": ["a"]}, "label_names should name 3 classes"),
    ({"num_classes": "3"}, "num_classes='3' should be like"),
  ],
)
def test_what_is_not_read_of_timm(hub, tmp_path, changes, message):
  hub.add("owner/model", hub_models.timm(tmp_path, **changes))
  with pytest.raises(ValueError) as error:
    vitjax.load(NAME)
  assert message in str(error.value)
  assert "config.json" in str(error.value)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (
      {"model_type": "beit"},
      "model_type='beit' is not implemented here. Known: 'convnext', 'deit'",
    ),
    (
      {"architectures": ["ViTForMaskedImageModeling"]},
      "architectures=('ViTForMaskedImageModeling',) is not implemented here",
    ),
    ({"hidden_act": "relu"}, "hidden_act='relu' is not implemented here"),
    ({"num_channels": 1}, "num_channels=1 is not implemented here. Known: 3"),
    ({"problem_type": "regression"}, "problem_type='regression' is not"),
    ({"id2label": {"0": "a", "2": "b"}}, "id2label should have a name for"),
    ({"model_type": None}, "model_type=None is not implemented here"),
  ],
)
def test_what_is_not_read_of_transformers(hub, tmp_path, changes, message):
  hub.add("owner/model", hub_models.transformers(tmp_path, **changes))
  with pytest.raises(ValueError) as error:
    vitjax.load(NAME)
  assert message in str(error.value)


@pytest.mark.parametrize(
  ("missing", "message"),
  [
    ("config.json", "has none of the files config.json, open_clip_config.json"),
    ("preprocessor_config.json", "has no file preprocessor_config.json"),
    ("model.safetensors", r"has none of the files model\.safetensors, model"),
  ],
)
def test_missing_files(hub, tmp_path, missing, message):
  files = hub_models.transformers(tmp_path)
  del files[missing]
  hub.add("owner/model", files)
  with pytest.raises(DownloadError, match=message):
    vitjax.load(NAME)


def test_an_unknown_model_is_refused_before_its_weights_are_fetched(
  hub, tmp_path
):
  hub.add(
    "owner/model", hub_models.transformers(tmp_path, model_type="segformer")
  )
  with pytest.raises(ValueError, match="segformer"):
    vitjax.load(NAME)
  assert not [path for _, path in hub.requests if "safetensors" in path]


def test_a_config_may_not_ask_for_a_huge_model(hub, tmp_path):
  hub.add(
    "owner/model",
    hub_models.transformers(tmp_path, num_hidden_layers=10**9),
  )
  with pytest.raises(ValueError, match="more than its arrays can hold"):
    vitjax.load(NAME)


@pytest.mark.parametrize("name", ["hf:model", "hf:a/b/c", "hf:a/b@", "hf:"])
def test_names_of_another_form(name):
  with pytest.raises(ValueError, match="Write hf:OWNER/REPO"):
    repository.parse(name)


def test_a_part_of_the_weights(hub, tmp_path):
  hub.add("owner/model", hub_models.timm(tmp_path))
  assert published.find(f"{NAME}:blocks").endswith("model.safetensors:blocks")


def test_a_run_begins_with_a_repository(hub, tmp_path):
  commit = hub.add("owner/model", hub_models.timm(tmp_path))
  config = transfer.get_config(f"{NAME},folder:/my/images")
  assert config.model.to_dict() == {
    "name": "vit_base_patch16_224",
    "patch_size": 16,
    "width": 16,
    "depth": 1,
    "num_heads": 2,
    "mlp_dim": 32,
  }
  assert config.init.weights == NAME
  assert config.optim.name == "adam"
  assert config.evals.val.pp.endswith("|value_range(-1, 1)")
  run = resolving.resolve(config)
  assert pretrained.commits(run) == {NAME: f"{NAME}@{commit}"}
  model = models.create(num_classes=7, **config.model)
  params = pretrained.load(run, model, (1, 64, 64, 3))
  want = hub_models.random_params(hub_models.vit())
  assert params["head"]["kernel"].shape == (16, 7)
  np.testing.assert_array_equal(params["cls"], want["cls"])
  with pytest.raises(ConfigError, match="no repository 'no/one'"):
    pretrained.load(with_weights(run, "hf:no/one"), model, (1, 64, 64, 3))


def with_weights(run, weights):
  init = dataclasses.replace(run.init, weights=weights)
  return dataclasses.replace(run, init=init)


def test_a_resumed_run_keeps_the_commit_that_it_began_with(hub, tmp_path):
  first = hub.add("owner/model", hub_models.timm(tmp_path))
  config = transfer.get_config(f"{NAME},folder:/my/images")
  run = resolving.resolve(config)
  noted = start.origin_of(run, tmp_path, is_new=True)
  assert noted == {"init": {NAME: f"{NAME}@{first}"}}
  (tmp_path / "model.json").write_bytes(hub_models.encode(noted))
  other = hub_models.arrays("timm_vit", seed=1)
  moved = hub_models.timm(tmp_path) | {
    "model.safetensors": hub_models.safetensors(other, tmp_path)
  }
  assert hub.add("owner/model", moved) != first
  for is_new in (False, True):  # also if it was killed before a checkpoint
    assert start.origin_of(run, tmp_path, is_new=is_new) == noted
  model = models.create(num_classes=7, **config.model)
  for commits, seed in ((noted["init"], 0), ({}, 1)):
    got = pretrained.load(run, model, (1, 64, 64, 3), commits)
    want = hub_models.random_params(hub_models.vit(), seed)
    np.testing.assert_array_equal(got["cls"], want["cls"])
  assert not start.origin_of(with_weights(run, None), tmp_path, is_new=True)


def test_other_commands_know_repositories(hub, tmp_path):
  hub.add("owner/model", hub_models.timm(tmp_path))
  found = benchmark.find(NAME, {}, "float32")
  assert (found.model.width, found.image_shape) == (16, (32, 32, 3))
  assert published.family(NAME) == "vit"
  assert choosing.has_free_size(NAME)
  assert not [path for _, path in hub.requests if "safetensors" in path]


def test_a_repository_may_not_name_a_module(hub, tmp_path):
  about = {
    "model": {"name": "os.path"},
    "image_size": [32, 32],
    "preprocess": "decode",
  }
  hub.add(
    "owner/model",
    {
      "config.json": b'{"vitjax": "model.json"}',
      "model.json": hub_models.encode(about),
    },
  )
  for use in (vitjax.load, published.describe):
    with pytest.raises(ValueError, match="importing it would run its code"):
      use(NAME)


def test_two_towers_of_transformers(hub, tmp_path):
  text = {"hidden_size": 32, "max_position_embeddings": 16}
  files = {
    "config.json": hub_models.encode(
      {
        "model_type": "clip",
        "architectures": ["CLIPModel"],
        "projection_dim": 24,
        "text_config": text,
        "vision_config": {"patch_size": 16, "hidden_act": "gelu"},
      }
    ),
    "preprocessor_config.json": b"{}",
    "merges.txt": b"#version: 0.2",
  }
  hub.add("owner/model", files)
  about = published.describe(NAME)
  assert about["preprocess"].startswith(
    'decode|resize_small(224, "bicubic", antialias=True)|central_crop(224)|norm'
  )
  model = about["model"]
  assert (model["image"]["gelu"], model["text"]["gelu"]) == ("erf", "quick")
  assert model["image"]["num_classes"] == model["text"]["num_classes"] == 24
  assert about["tokenizer"]["name"] == "clip"
  assert about["tokenizer"]["max_len"] == 16
  assert about["tokenizer"]["vocab"].endswith("merges.txt")
  files["config.json"] = hub_models.encode(
    {"model_type": "siglip", "architectures": ["SiglipModel"]}
  )
  files["tokenizer_config.json"] = b'{"tokenizer_class": "T5Tokenizer"}'
  hub.add("owner/model", files)
  with pytest.raises(ValueError, match="tokenizer_class='T5Tokenizer' is not"):
    published.describe(NAME)
  files["tokenizer_config.json"] = b'{"tokenizer_class": "SiglipTokenizer"}'
  hub.add("owner/model", {**files, "spiece.model": b"x"})
  about = published.describe(NAME)
  assert about["tokenizer"]["name"] == "hf_siglip"
  assert (about["loss"], about["model"]["bias_init"]) == ("siglip", -10.0)
  assert about["model"]["text"]["num_classes"] == 768


def gemma() -> bytes:
  """A tokenizer.json with Gemma's special tokens and one merge."""
  library = pytest.importorskip("tokenizers")
  special = ("<pad>", "<eos>", "<bos>", "<unk>")
  vocab = {x: i for i, x in enumerate((*special, "\u2581", *"aent", "an"))}
  tokenizer = library.Tokenizer(
    library.models.BPE(vocab, [("a", "n")], unk_token="<unk>")
  )
  tokenizer.normalizer = library.normalizers.Replace(" ", "\u2581")
  return tokenizer.to_str().encode()


# A small tower of SigLIP 2, by the names of transformers and by ours.
SIZES = {
  "hidden_size": 16,
  "intermediate_size": 24,
  "num_attention_heads": 2,
  "num_hidden_layers": 1,
}
TOWER = {"width": 16, "mlp_dim": 24, "num_heads": 2, "depth": 1}


def test_siglip_2_of_transformers(hub, tmp_path):
  """The fields that Google's repositories have, and small sizes."""
  text = {**TOWER, "vocab_size": 10, "max_len": 6, "num_classes": 16}
  model = models.create(
    "two_tower",
    image={**TOWER, "patch_size": 16, "pool_type": "map"},
    text=text,
    bias_init=-10.0,
  )
  config = {
    "initializer_factor": 1.0,
    "model_type": "siglip",
    "text_config": {
      "model_type": "siglip_text_model",
      "vocab_size": 10,
      "max_position_embeddings": 6,
      "projection_size": 16,
      **SIZES,
    },
    "transformers_version": "4.49.0.dev0",
    "vision_config": {
      "image_size": 32,
      "model_type": "siglip_vision_model",
      **SIZES,
    },
  }
  processor = {
    "do_convert_rgb": None,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
    "image_processor_type": "SiglipImageProcessor",
    "resample": 2,
    "size": {"height": 32, "width": 32},
  }
  weights = hub_models.arrays("hf_towers", model)
  hub.add(
    "owner/model",
    {
      "config.json": hub_models.encode(config),
      "preprocessor_config.json": hub_models.encode(processor),
      "tokenizer_config.json": b'{"tokenizer_class": "GemmaTokenizer"}',
      "tokenizer.json": gemma(),
      "model.safetensors": hub_models.safetensors(weights, tmp_path),
    },
  )
  run = vitjax.load(NAME)
  check_params(run, hub_models.random_params(model))
  assert run.preprocess == (
    "decode|resize(32, antialias=True)|value_range(-1, 1)"
  )
  ids = run.tokenizer(["An ant", "tea"])
  assert ids.tolist() == [[9, 4, 9, 8, 1, 0], [8, 6, 5, 1, 0, 0]]
  batch = run.prepare(np.full((20, 30, 3), 100, np.uint8))[None]
  i, t, out = jax.jit(model.apply)(
    {"params": hub_models.random_params(model)}, batch, ids
  )
  want = np.asarray(i) @ np.asarray(t).T * np.asarray(out["t"])
  np.testing.assert_allclose(
    run.similarity(batch, ["An ant", "tea"]),
    want + np.asarray(out["b"]),
    rtol=1e-4,
    atol=1e-4,
  )


def test_siglip_2_naflex_of_transformers(hub, tmp_path):
  """Images of any shape are classified by captions, by name alone."""
  image = {**TOWER, "patch_size": 8, "pool_type": "map", "posemb_grid": 3}
  image |= {"posemb_resize": "linear", "naflex": True}
  text = {**TOWER, "vocab_size": 10, "max_len": 6, "num_classes": 16}
  model = models.create("two_tower", image=image, text=text, bias_init=-10.0)
  config = {
    "model_type": "siglip2",
    "architectures": ["Siglip2Model"],
    "text_config": {
      "model_type": "siglip2_text_model",
      "vocab_size": 10,
      "max_position_embeddings": 6,
      **SIZES,
    },
    "vision_config": {
      "model_type": "siglip2_vision_model",
      "num_patches": 9,
      "patch_size": 8,
      **SIZES,
    },
  }
  processor = {
    "image_processor_type": "Siglip2ImageProcessor",
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
    "max_num_patches": 12,
    "patch_size": 8,
    "resample": 2,
  }
  shapes = fitting.shapes(model, fitting.example_inputs(model, (104, 8)))
  rng = np.random.default_rng(0)
  flat = {n: rng.normal(size=x.shape) * 0.5 for n, x in shapes.items()}
  flat = {n: x.astype(np.float32) for n, x in flat.items()}
  theirs = layouts.get("hf_towers").from_vitjax(flat, model)
  name = "vision_model.embeddings.patch_embedding.weight"
  kernel = theirs[name].transpose(0, 2, 3, 1)  # as `Siglip2Model` has it
  files = {
    "config.json": hub_models.encode(config),
    "preprocessor_config.json": hub_models.encode(processor),
    "tokenizer_config.json": b'{"tokenizer_class": "GemmaTokenizer"}',
    "tokenizer.json": gemma(),
    "model.safetensors": hub_models.safetensors(
      {**theirs, name: kernel.reshape(len(kernel), -1)}, tmp_path
    ),
  }
  hub.add("owner/model", files)
  run = vitjax.load(NAME)
  check_params(run, trees.unflatten(flat))
  assert run.preprocess == "decode|naflex(12, 8)|value_range(-1, 1)"
  assert run.image_size == (13 * 8, 8)
  images = rng.integers(0, 255, (2, 60, 60, 3), np.uint8)
  batch = np.stack([run.prepare(images[0, :20]), run.prepare(images[1])])
  both = run.similarity(batch, ["An ant", "tea"])
  for row, alone in zip(both, batch):
    found = run.similarity(alone[None], ["An ant", "tea"])
    np.testing.assert_allclose(row, found[0], atol=1e-6)  # cosines
  with pytest.raises(
    ValueError, match="a graph cannot prepare images for a mo"
  ):
    forward.of_images(run, "tensor")
  file = tmp_path / "out.npz"
  weights.save(file, run.params, run.model, metadata=run.metadata)
  check_params(vitjax.load(file), run.params)
  with pytest.raises(ValueError, match="shape, which this layout does not"):
    weights.save(
      tmp_path / "out.safetensors",
      run.params,
      run.model,
      layout="hf_towers",
      metadata=run.metadata,
    )
  config["vision_config"]["num_patches"] = 12
  hub.add("owner/model", {**files, "config.json": hub_models.encode(config)})
  with pytest.raises(ValueError, match="num_patches=12 is not implemented"):
    vitjax.load(NAME)


def test_the_options_of_dino():
  def options(kind, **fields):
    return transformers.FAMILIES[kind].options(Fields(fields, "config.json"))

  giant = options("dinov2", hidden_size=1536, use_swiglu_ffn=True)
  assert giant["mlp_dim"] == 4096
  assert giant["pool_type"] == "tok"
  classes = ("Dinov2ForImageClassification",)
  assert options("dinov2", architectures=classes)["pool_type"] == "tok+gap"
  assert options("dinov2_with_registers")["num_registers"] == 4
  dino = options("dinov3_vit", pos_embed_rescale=None)
  assert (dino["rope_rescale"], dino["rope_base"]) == (1.0, 100.0)
  assert options("dinov3_vit")["rope_rescale"] == 2.0
  gated = options("dinov3_vit", use_gated_mlp=True, hidden_act="silu")
  assert gated["swiglu"]
