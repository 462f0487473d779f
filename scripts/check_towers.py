"""Checks two towers: OpenCLIP and transformers must agree with vitjax.

  python -m scripts.check_towers export FOLDER      # where vitjax is installed
  python -m scripts.check_towers compare FOLDER     # where the others are
  python -m scripts.check_towers reference FOLDER   # where the others are

The first writes models with random weights in both layouts, and their logits
for random images and texts. The second loads each file strictly into the model
that the JSON file beside it describes, and prints the largest difference of the
logits relative to the largest logit. It ends with status 1 if one is above the
tolerance. The third writes the reference cases of tests/golden/reference. For
the others:

  pip install torch==2.14.1 torchvision==0.29.1 timm open_clip_torch \\
    transformers
"""

import argparse
import copy
import json
import pathlib
import runpy
import sys

import numpy as np

TOLERANCE = 2e-5
REFERENCE = pathlib.Path("tests/golden/reference")

# Model of vitjax, its options and layouts.
_CLIP = {
  "image": {
    "patch_size": 8,
    "width": 32,
    "depth": 3,
    "num_heads": 4,
    "pool_type": "tok",
    "posemb_prefix": True,
    "pre_norm": True,
  },
  "text": {
    "width": 24,
    "depth": 2,
    "num_heads": 2,
    "vocab_size": 60,
    "max_len": 11,
    "pool_type": "eot",
    "causal": True,
  },
}
_SIGLIP = {
  "image": {
    "patch_size": 8,
    "width": 32,
    "depth": 3,
    "num_heads": 4,
    "mlp_dim": 88,
    "pool_type": "map",
  },
  "text": {
    "width": 32,
    "depth": 2,
    "num_heads": 4,
    "mlp_dim": 88,
    "vocab_size": 60,
    "max_len": 11,
    "num_classes": 32,
  },
  "bias_init": -10.0,
}


def _clip(gelu: str) -> dict:
  both = {
    "num_classes": 16,
    "head_bias": False,
    "gelu": gelu,
    "layer_norm_eps": 1e-5,
  }
  return {tower: {**fields, **both} for tower, fields in _CLIP.items()}


CASES = {
  "mini CLIP, quick GELU": ("two_tower", _clip("quick"), 32),
  "mini CLIP, exact GELU": ("two_tower", _clip("erf"), 32),
  "mini SigLIP": ("two_tower", _SIGLIP, 32),
  "ViT-B-32-quickgelu": ("ViT-B-32-quickgelu", {}, 224),
  "ViT-B-16": ("ViT-B-16", {}, 224),
  "ViT-L-14": ("ViT-L-14", {}, 224),
  "SigLIP B-16": ("SigLIP B/16 224", {}, 224),
}
LAYOUTS = ("open_clip", "hf_towers")


def _file(folder: pathlib.Path, case: str, layout: str) -> pathlib.Path:
  name = case.replace(",", "").replace(" ", "-")
  return folder / f"{name}.{layout}.safetensors"


def export(folder: pathlib.Path, names: list[str]) -> None:
  """Writes weights, their description, inputs and logits."""
  import jax
  from absl import logging

  from scripts.check_timm import random_weights
  from vitjax import models, trees, weights

  logging.set_verbosity(logging.WARNING)
  jax.config.update("jax_default_matmul_precision", "highest")
  for name in names:
    published, options, size = CASES[name]
    model = models.create(published, **options)
    inputs = model.example_inputs(size)
    rng = np.random.default_rng(len(name))
    shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs)["params"]
    params = trees.map_with_names(
      lambda path, x, rng=rng: random_weights(path, x.shape, rng), shapes
    )
    image = rng.uniform(-1, 1, (2, size, size, 3)).astype(np.float32)
    vocab = model.text_tower().vocab_size
    text = rng.integers(0, vocab, (3, inputs[1].shape[1])).astype(np.int32)
    # The end of a text, which transformers looks for, with padding behind it.
    text[:, 5], text[1:, 6:] = vocab - 1, 0
    i, t, out = jax.jit(lambda p, *x, m=model: m.apply({"params": p}, *x))(
      params, image, text
    )
    logits = out["t"] * (i @ t.T) + out.get("b", 0)
    for layout in LAYOUTS:
      file = _file(folder, name, layout)
      metadata = {
        "model": {"name": published, **options},
        "image_size": size,
        "channels": 3,
      }
      weights.save(file, params, model, layout=layout, metadata=metadata)
      np.savez(
        file.with_suffix(".logits.npz"), image=image, text=text, logits=logits
      )
      print(f"wrote {file}", flush=True)


def compare(folder: pathlib.Path, names: list[str]) -> None:
  """Loads what `export` wrote and prints two tables."""
  import open_clip
  import safetensors.torch
  import torch
  import transformers

  print(
    f"open_clip {open_clip.__version__}, transformers "
    f"{transformers.__version__}, torch {torch.__version__}"
  )
  failed = []
  for name in names:
    for layout in LAYOUTS:
      file = _file(folder, name, layout)
      facts = json.loads(file.with_suffix(".json").read_text())
      with np.load(file.with_suffix(".logits.npz")) as arrays:
        image, text, want = (arrays[x] for x in ("image", "text", "logits"))
      build = {"open_clip": _open_clip, "hf_towers": _transformers}[layout]
      model = build(facts)
      state = safetensors.torch.load_file(file)
      model.load_state_dict(state, strict=True)
      got = _outputs(model, image, text)["logits"]
      gap = float(np.abs(got - want).max() / np.abs(want).max())
      bad = not gap <= TOLERANCE
      failed += [f"{name} {layout}"] if bad else []
      print(
        f"{name:24} {layout:10} {gap:.1e}{'  FAILED' if bad else ''}",
        flush=True,
      )
  if failed:
    sys.exit(f"{len(failed)} differ: {', '.join(failed)}")


def _open_clip(facts: dict):
  """OpenCLIP's model that `facts` describe."""
  import open_clip
  import timm

  config = copy.deepcopy(facts["open_clip"]["model_cfg"])
  if not config.pop("custom_text", False):
    return open_clip.model.CLIP(**config)
  # OpenCLIP passes a timm model no arguments, so its small one is put in.
  config["vision_cfg"]["timm_model_name"] = "vit_base_patch16_siglip_224"
  model = open_clip.model.CustomTextCLIP(**config)
  model.visual.trunk = timm.create_model(
    "vit_base_patch16_siglip_224", **facts["timm"]
  )
  return model


def _transformers(facts: dict):
  """transformers' model that `facts` describe."""
  import transformers

  config = dict(facts["transformers"])
  if config.pop("model_type") == "clip":
    return transformers.CLIPModel(transformers.CLIPConfig(**config))
  return transformers.SiglipModel(transformers.SiglipConfig(**config))


def _outputs(model, image: np.ndarray, text: np.ndarray) -> dict:
  """Embeddings, logits and temperature of a model of either kind."""
  import torch

  model = model.eval()
  dtype = next(model.parameters()).dtype
  pixels = torch.from_numpy(image.transpose(0, 3, 1, 2).copy()).to(dtype)
  ids = torch.from_numpy(text.astype(np.int64))
  with torch.inference_mode():
    if hasattr(model, "encode_image"):
      i = model.encode_image(pixels, normalize=True)
      t = model.encode_text(ids, normalize=True)
    else:
      out = model(input_ids=ids, pixel_values=pixels)
      i, t = out.image_embeds, out.text_embeds
    found = {
      "image_embedding": i,
      "text_embedding": t,
      "t": model.logit_scale.exp().reshape(1),
    }
    bias = getattr(model, "logit_bias", None)
    if bias is not None:
      found["b"] = bias.reshape(1)
    found["logits"] = found["t"] * (i @ t.T) + found.get("b", 0)
    if not hasattr(model, "encode_image"):
      torch.testing.assert_close(found["logits"], out.logits_per_image)
  return {name: x.detach().numpy() for name, x in found.items()}


# Reference cases: how the others make the model, batches of images and texts.
def _reference_cases() -> dict:
  import open_clip
  import transformers

  def mini_open_clip(**kwargs):
    return open_clip.model.CLIP(
      embed_dim=16,
      vision_cfg={
        "image_size": 32,
        "patch_size": 8,
        "width": 32,
        "head_width": 8,
        "layers": 3,
      },
      text_cfg={
        "context_length": 11,
        "vocab_size": 60,
        "width": 24,
        "heads": 2,
        "layers": 2,
      },
      **kwargs,
    )

  def mini_config(hidden_act, heads=4, **kwargs):
    return {
      "hidden_size": 32,
      "intermediate_size": 88,
      "num_attention_heads": heads,
      "hidden_act": hidden_act,
      **kwargs,
    }

  def mini_clip():
    vision = {"image_size": 32, "patch_size": 8, "num_hidden_layers": 3}
    text = {
      "vocab_size": 60,
      "max_position_embeddings": 11,
      "num_hidden_layers": 2,
      "eos_token_id": 2,  # as published: the largest id is the end
    }
    config = transformers.CLIPConfig(
      vision_config=mini_config("gelu", **vision),
      text_config=mini_config("gelu", heads=2, **text),
      projection_dim=16,
    )
    return transformers.CLIPModel(config)

  def mini_siglip():
    act = "gelu_pytorch_tanh"
    vision = {"image_size": 32, "patch_size": 8, "num_hidden_layers": 3}
    text = {
      "vocab_size": 60,
      "max_position_embeddings": 11,
      "num_hidden_layers": 2,
      "projection_size": 32,
    }
    config = transformers.SiglipConfig(
      vision_config=mini_config(act, **vision),
      text_config=mini_config(act, **text),
    )
    return transformers.SiglipModel(config)

  def published(name):
    config = open_clip.get_model_config(name)
    return open_clip.model.CLIP(**config)

  def clip_l14():
    config = open_clip.get_model_config("ViT-L-14")
    config["vision_cfg"]["layers"], config["text_cfg"]["layers"] = 4, 3
    return open_clip.model.CLIP(**config)

  def siglip_so400m():
    act = "gelu_pytorch_tanh"
    sizes = {
      "hidden_size": 1152,
      "intermediate_size": 4304,
      "num_attention_heads": 16,
      "hidden_act": act,
    }
    config = transformers.SiglipConfig(
      vision_config={**sizes, "num_hidden_layers": 3, "patch_size": 14},
      text_config={
        **sizes,
        "num_hidden_layers": 2,
        "max_position_embeddings": 16,
        "projection_size": 1152,
      },
    )
    return transformers.SiglipModel(config)

  def hf_b16():
    config = transformers.CLIPConfig(
      vision_config={"patch_size": 16, "hidden_act": "gelu"},
      text_config={"eos_token_id": 2, "hidden_act": "gelu"},
    )
    return transformers.CLIPModel(config)

  return {
    "mini_clip_openclip": (lambda: mini_open_clip(quick_gelu=True), 32, 11, 60),
    "mini_clip_hf": (mini_clip, 32, 11, 60),
    "mini_siglip_hf": (mini_siglip, 32, 11, 60),
    "clip_vit_b_32_quickgelu": (
      lambda: published("ViT-B-32-quickgelu"),
      224,
      77,
      49_408,
    ),
    "clip_vit_b_16": (hf_b16, 224, 77, 49_408),
    "siglip_b_16_224": (
      lambda: transformers.SiglipModel(transformers.SiglipConfig()),
      224,
      64,
      32_000,
    ),
    # With fewer blocks than published, in the published widths.
    "clip_vit_l_14_cut": (clip_l14, 224, 77, 49_408),
    "siglip_so400m_14_cut": (siglip_so400m, 224, 16, 32_000),
  }


def reference(folder: pathlib.Path, names: list[str]) -> None:
  """Writes the cases: names, shapes and what the others' models give."""
  import torch

  weights_by_rule = runpy.run_path(str(REFERENCE / "refweights.py"))
  cases = _reference_cases()
  for name in names or cases:
    build, size, length, vocab = cases[name]
    model = build()
    state = {
      key: x
      for key, x in model.state_dict().items()
      if not key.endswith("position_ids")
    }
    case = {
      "name": name,
      "source": type(model).__module__.partition(".")[0],
      "seed": 0,
      "shapes": {key: list(x.shape) for key, x in state.items()},
      "image_shape": [2, size, size, 3],
      "token_shape": [3, length, vocab],
      # By the number of outputs, not of inputs as the other kernels.
      "rules": [["in_proj_weight", 0.0, 3**0.5]],
    }
    flat = weights_by_rule["weights"](case)
    tensors = {key: torch.from_numpy(x) for key, x in flat.items()}
    model.load_state_dict(tensors, strict=False)
    model.double()  # so that all rounding is ours
    outputs = _outputs(
      model, weights_by_rule["images"](case), weights_by_rule["tokens"](case)
    )
    case["outputs"] = {key: x.tolist() for key, x in outputs.items()}
    file = folder / f"{name}.json"
    file.write_text(json.dumps(case) + "\n")
    print(f"wrote {file}", flush=True)


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("command", choices=("export", "compare", "reference"))
  parser.add_argument("folder", type=pathlib.Path)
  parser.add_argument("names", nargs="*", metavar="NAME")
  args = parser.parse_args()
  if args.command == "reference":
    reference(args.folder, args.names)
    return
  if unknown := sorted(set(args.names) - CASES.keys()):
    parser.error(f"{', '.join(unknown)}: known are {', '.join(CASES)}")
  names = args.names or list(CASES)
  if args.command == "export":
    export(args.folder, names)
  else:
    compare(args.folder, names)


if __name__ == "__main__":
  main()
