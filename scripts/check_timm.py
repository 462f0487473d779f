"""Checks exports: timm must give the logits that vitjax gives.

  python -m scripts.check_timm export FOLDER [NAME...]  # with vitjax
  python -m scripts.check_timm compare FOLDER           # with timm

The first writes models with random weights, in the layouts that timm reads,
and their logits for random images. The second loads each file into timm,
strictly, with the arguments that the JSON file beside it names, and prints
the largest difference of the logits relative to the largest logit. It ends
with status 1 if one is above its tolerance. Neither needs the other's
packages; for the second:

  pip install torch==2.14.1 torchvision==0.29.1 timm

Names are those of the cases below (default: all), published models that timm
has under the same name, and @timm-12k for those of docs/pareto.
"""

import argparse
import json
import pathlib
import sys

import numpy as np

# Float32 against float32. Deep networks of standardised convolutions add up
# more rounding.
TOLERANCE = 2e-5
TOLERANCE_STD = 1e-4

# Case -> model of vitjax, its options, layout and timm's model.
CASES = {
  "ViT-Ti_16": ("ViT-Ti_16", {}, "timm_vit", "vit_tiny_patch16_224"),
  "ViT-Ti_16 npz": ("ViT-Ti_16", {}, "timm_npz", "vit_tiny_patch16_224"),
  "ViT-S_16-gap": (
    "ViT-S_16-gap-norep",
    {},
    "timm_vit",
    "vit_small_patch16_224",
  ),
  "ViT-S_16-gap npz": (
    "ViT-S_16-gap-norep",
    {},
    "timm_npz",
    "vit_small_patch16_224",
  ),
  "ViT-Ti_16-map npz": (
    "vit",
    {"variant": "Ti/16", "pool_type": "map"},
    "timm_npz",
    "vit_base_patch16_siglip_224",
  ),
  "R+ViT-Ti_16": ("R+ViT-Ti_16", {}, "timm_hybrid", "vit_tiny_r_s16_p8_224"),
  "R26+ViT-S_32": (
    "R26+ViT-S_32",
    {},
    "timm_hybrid",
    "vit_small_r26_s32_224",
  ),
  "mixer_s32_224 tanh": (
    "mixer_s32_224",
    {"gelu": "tanh"},
    "timm_mixer",
    "mixer_s32_224",
  ),
  "convnext_atto tanh": (
    "convnext_atto",
    {"gelu": "tanh"},
    "timm_convnext",
    "convnext_atto",
  ),
  "two blocks of DINOv2 g": (
    "vit_giant_patch14_dinov2",
    {"depth": 2},
    "timm_vit",
    "vit_giant_patch14_dinov2",
  ),
  "vit_small_patch16_dinov3 token": (
    "vit_small_patch16_dinov3",
    {"pool_type": "tok"},
    "timm_eva",
    "vit_small_patch16_dinov3",
  ),
  "grey 144 px": (
    "vit",
    {"variant": "Ti/16"},
    "timm_vit",
    "vit_small_patch16_224",
  ),
  "grey 144 px, fixed table": (
    "vit",
    {"variant": "Ti/16", "posemb": "sincos2d", "key_bias": False},
    "timm_vit",
    "vit_small_patch16_224",
  ),
  "grey 144 px, fixed table npz": (
    "vit",
    {
      "variant": "Ti/16",
      "pool_type": "tok",
      "posemb": "sincos2d",
      "qkv_bias": False,
    },
    "timm_npz",
    "vit_small_patch16_224",
  ),
  "grey 144 px, mixer": (
    "mixer_s32_224",
    {"patch_size": 16},
    "timm_mixer",
    "mixer_s16_224",
  ),
  **{
    f"grey 144 px, {name}": (name, {}, layout, timm_model)
    for name, layout, timm_model in (
      ("convnext_atto", "timm_convnext", "convnext_atto"),
      ("dm_nfnet_f0", "timm_nfnet", "dm_nfnet_f0"),
      ("resnetv2_50x1_bit", "timm_bit", "resnetv2_50x1_bit"),
      (
        "vit_medium_patch16_rope_reg1_gap_256",
        "timm_eva",
        "vit_medium_patch16_rope_reg1_gap_256",
      ),
    )
  },
  **{
    name: (name, {}, layout, name)
    for name, layout in (
      ("vit_betwixt_patch16_reg4_gap_256", "timm_vit"),
      ("vit_pwee_patch16_reg1_gap_256", "timm_vit"),
      ("vit_dwee_patch16_reg1_gap_256", "timm_vit"),
      ("vit_dpwee_patch16_reg1_gap_256", "timm_vit"),
      ("vit_medium_patch16_rope_reg1_gap_256", "timm_eva"),
      ("vit_small_patch14_dinov2", "timm_vit"),
      ("vit_small_patch14_reg4_dinov2", "timm_vit"),
      ("vit_small_patch16_dinov3", "timm_eva"),
      ("vit_small_plus_patch16_dinov3_qkvb", "timm_eva"),
      ("eva02_tiny_patch14_336", "timm_eva"),
      ("eva02_base_patch14_224", "timm_eva"),
      ("deit3_small_patch16_224", "timm_vit"),
      ("mixer_s32_224", "timm_mixer"),
      ("convnext_atto", "timm_convnext"),
      ("convnext_tiny", "timm_convnext"),
      ("dm_nfnet_f0", "timm_nfnet"),
      ("resnetv2_50x1_bit", "timm_bit"),
      ("regnety_032", "timm_regnet"),
      ("resnet50", "timm_resnet"),
      ("seresnext26d_32x4d", "timm_resnet"),
      ("efficientnet_b0", "timm_efficientnet"),
      ("tf_efficientnet_lite0", "timm_efficientnet"),
    )
  },
}


def pareto_names() -> list[str]:
  """Architectures of the table whose models `vitjax pareto` measures."""
  from vitjax.pareto import benchmark

  names, _ = benchmark.expand(["@timm-12k"], {})
  return list(dict.fromkeys(name.partition(".")[0] for name in names))


def export(folder: pathlib.Path, names: list[str]) -> None:
  """Writes weights, their JSON file, images and logits of each case."""
  import jax
  from absl import logging

  from vitjax import models, trees, weights
  from vitjax.models import batch_norm
  from vitjax.weights import layouts

  logging.set_verbosity(logging.WARNING)
  jax.config.update("jax_default_matmul_precision", "highest")
  for name in names:
    published, options, layout, timm_model = CASES.get(
      name, (name, {}, None, name)
    )
    model = models.create(published, num_classes=1000, **options)
    layout = layout or layouts.default(model, ".safetensors")
    facts = models.list().get(published, {})
    size, channels = facts.get("image_size", 224), 3
    if name.startswith("grey 144 px"):
      size, channels = 144, 1
    rng = np.random.default_rng(len(name))
    image = rng.uniform(-1, 1, (2, size, size, channels)).astype(np.float32)
    shapes = batch_norm.join(
      jax.eval_shape(model.init, jax.random.key(0), image)
    )
    params = trees.map_with_names(
      lambda path, x, rng=rng: random_weights(path, x.shape, rng), shapes
    )
    logits = jax.jit(lambda v, x, m=model: m.apply(v, x)[0])(
      batch_norm.split(params), image
    )
    metadata = {
      "case": name,
      "model": {"name": published, "num_classes": 1000, **options},
      "image_size": size,
      "channels": channels,
      "timm_model": timm_model,
      "tolerance": (
        TOLERANCE_STD
        if layout in ("timm_hybrid", "timm_nfnet", "timm_bit")
        else TOLERANCE
      ),
    }
    suffix = ".npz" if layout == "timm_npz" else ".safetensors"
    file = folder / f"{name.replace(',', '').replace(' ', '-')}{suffix}"
    weights.save(file, params, model, layout=layout, metadata=metadata)
    np.savez(file.with_suffix(".logits.npz"), image=image, logits=logits)
    print(f"wrote {file}", flush=True)


def random_weights(path: str, shape: tuple[int, ...], rng) -> np.ndarray:
  """Values of a plausible size, nowhere zero: zeros hide mistakes."""
  x = rng.standard_normal(shape, dtype=np.float32)
  leaf = path.rpartition("/")[2]
  if leaf in ("scale", "gamma", "gain", "skip_gain"):
    return np.asarray(1 + 0.1 * x, np.float32)
  if leaf == "var":
    return np.asarray(1 + np.abs(x), np.float32)
  if leaf != "kernel":
    return np.asarray(0.1 * x, np.float32)
  is_qkv = path.endswith(("query/kernel", "key/kernel", "value/kernel"))
  fan_in = shape[0] if is_qkv else np.prod(shape[:-1])
  return x / np.float32(np.sqrt(fan_in))


def compare(folder: pathlib.Path) -> None:
  """Loads what `export` wrote into timm and prints a table."""
  import timm
  import torch

  print(f"timm {timm.__version__}, torch {torch.__version__}")
  failed = []
  files = sorted([*folder.glob("*.npz"), *folder.glob("*.safetensors")])
  files = [x for x in files if not x.name.endswith(".logits.npz")]
  for file in files:
    facts = json.loads(file.with_suffix(".json").read_text())
    with np.load(file.with_suffix(".logits.npz")) as arrays:
      image, want = arrays["image"], arrays["logits"]
    arguments = facts["timm"]
    if facts["layout"] == "timm_mixer" and "act_layer" in arguments:
      act_layer = timm.layers.get_act_layer(arguments["act_layer"])
      arguments = {**arguments, "act_layer": act_layer}
    model = timm.create_model(facts["timm_model"], **arguments)
    if file.suffix == ".npz":
      model.load_pretrained(str(file))
    else:
      import safetensors.torch

      state = safetensors.torch.load_file(file)
      model.load_state_dict(state, strict=True)
    with torch.inference_mode():
      got = model.eval()(torch.from_numpy(image.transpose(0, 3, 1, 2).copy()))
    gap = float(np.abs(got.numpy() - want).max() / np.abs(want).max())
    bad = not gap <= facts["tolerance"]
    name = facts["case"]
    failed += [name] if bad else []
    print(f"{name:40} {gap:.1e}{'  FAILED' if bad else ''}", flush=True)
  if failed:
    sys.exit(f"{len(failed)} of {len(files)} differ: {', '.join(failed)}")


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("command", choices=("export", "compare"))
  parser.add_argument("folder", type=pathlib.Path)
  parser.add_argument("names", nargs="*", metavar="NAME")
  args = parser.parse_args()
  if args.command == "compare":
    if args.names:
      parser.error("compare takes no names: it compares all of FOLDER")
    return compare(args.folder)
  from vitjax import models

  names = args.names or list(CASES)
  if "@timm-12k" in names:
    names = [x for x in names if x != "@timm-12k"] + pareto_names()
  if unknown := sorted({*names} - {*CASES} - {*models.list()}):
    parser.error(f"{', '.join(unknown)}: known are {', '.join(CASES)}")
  export(args.folder, names)


if __name__ == "__main__":
  main()
