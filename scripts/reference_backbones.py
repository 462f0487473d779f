r"""DINOv2, DINOv3 and EVA-02 by their published code, as reference cases.

  python -m scripts.reference_backbones tests/golden/reference [NAME ...]

Writes one file for each case: the shapes of its parameters and the outputs for
random images. Weights and images are made from names and a seed, see
`refweights.py` in the same folder. Needs no vitjax but

  pip install torch==2.14.1 torchvision==0.29.1 timm==1.0.31 \
    transformers==5.24.0

and, for the cases of the authors' code, checkouts of facebookresearch/dinov2
and facebookresearch/dinov3 in PYTHONPATH.
"""

import glob
import json
import pathlib
import sys
import tempfile

import numpy as np

# Scales of LayerScale are about 1, so that a missing one shows.
RULES = [[r"gamma_[12]$|lambda1$|\.gamma$", 1.0, 1.0]]
VIT = {"embed_dim": 32, "depth": 2, "num_heads": 2}
EVA = {**VIT, "patch_size": 14, "num_classes": 10, "swiglu_mlp": True}
HF = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
DINOV2 = {**VIT, "img_size": 56, "patch_size": 14, "init_values": 1.0}

# Name -> code, model, options, and height and width of the images.
CASES = {
  "mini_dinov2": ("dinov2", None, {**DINOV2, "block_chunks": 0}, (84, 112)),
  "mini_dinov2_reg": (
    "dinov2",
    None,
    {
      **DINOV2,
      "block_chunks": 0,
      "num_register_tokens": 4,
      "ffn_layer": "swiglufused",
      "interpolate_antialias": True,
      "interpolate_offset": 0.0,
    },
    (42, 70),
  ),
  "mini_dinov3": (
    "dinov3",
    None,
    {
      **VIT,
      "patch_size": 16,
      "ffn_ratio": 3,
      "ffn_layer": "swiglu",
      "layerscale_init": 1e-5,
      "n_storage_tokens": 3,
      "mask_k_bias": True,
      "norm_layer": "layernormbf16",
      "pos_embed_rope_dtype": "fp32",
    },
    (48, 80),
  ),
  "mini_timm_dinov3": (
    "timm",
    "vit_small_patch16_dinov3_qkvb",
    {**VIT, "num_classes": 10},
    (48, 80),
  ),
  "mini_eva02": (
    "timm",
    "eva02_tiny_patch14_224",
    {**EVA, "qkv_fused": False, "scale_mlp": True, "img_size": (42, 56)},
    (42, 56),
  ),
  "mini_eva02_fused": (
    "timm",
    "eva02_tiny_patch14_224",
    {**EVA, "img_size": (42, 56)},
    (42, 56),
  ),
  "mini_hf_dinov2": (
    "transformers",
    "Dinov2Model",
    {**HF, "image_size": 56, "patch_size": 14},
    (56, 56),
  ),
  "mini_hf_dinov2_reg": (
    "transformers",
    "Dinov2WithRegistersForImageClassification",
    {
      **HF,
      "image_size": 56,
      "patch_size": 14,
      "use_swiglu_ffn": True,
      "num_labels": 10,
    },
    (56, 56),
  ),
  "mini_hf_dinov3": (
    "transformers",
    "DINOv3ViTModel",
    {
      **HF,
      "intermediate_size": 64,
      "use_gated_mlp": True,
      "hidden_act": "silu",
      "num_register_tokens": 3,
    },
    (48, 80),
  ),
  "mini_hf_dinov3_convnext": (
    "transformers",
    "DINOv3ConvNextModel",
    {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 2, 1]},
    (64, 96),
  ),
  **{
    f"timm_{name}": ("timm", name, {"num_classes": 10}, (size, size))
    for name, size in (
      ("vit_small_patch14_reg4_dinov2", 518),
      ("vit_small_plus_patch16_dinov3", 256),
      ("eva02_tiny_patch14_336", 336),
    )
  },
}


def build(code: str, name: str | None, options: dict):
  """The model, and the shapes of its parameters by their names in files."""
  if code in ("dinov2", "dinov3"):
    module = __import__(f"{code}.models.vision_transformer", fromlist=["x"])
    model = module.DinoVisionTransformer(**options)
    if code == "dinov3":
      model.init_weights()  # of the mask and the periods
  elif code == "timm":
    import timm

    model = timm.create_model(name, **options)
  else:
    import safetensors.numpy
    import transformers

    cls = getattr(transformers, name)
    model = cls(cls.config_class(**options))
    with tempfile.TemporaryDirectory() as folder:
      model.save_pretrained(folder)
      (file,) = glob.glob(f"{folder}/*.safetensors")
      flat = safetensors.numpy.load_file(file)
    return model, {n: list(x.shape) for n, x in flat.items()}
  return model, {n: list(p.shape) for n, p in model.named_parameters()}


def load(code: str, model, flat: dict[str, np.ndarray]):
  """The model with these weights."""
  import torch

  if code != "transformers":
    tensors = {name: torch.from_numpy(x) for name, x in flat.items()}
    missing, extra = model.load_state_dict(tensors, strict=False)
    buffers = {name for name, _ in model.named_buffers()}
    assert not extra and set(missing) <= buffers, (missing, extra)
    return model.eval()
  import safetensors.numpy

  with tempfile.TemporaryDirectory() as folder:
    model.save_pretrained(folder)
    (file,) = glob.glob(f"{folder}/*.safetensors")
    safetensors.numpy.save_file(flat, file, {"format": "pt"})
    return type(model).from_pretrained(folder).eval()


def versions(code: str) -> str:
  if code in ("dinov2", "dinov3"):
    return f"facebookresearch/{code}"
  return f"{code} {__import__(code).__version__}"


def main() -> None:
  import torch

  folder = pathlib.Path(sys.argv[1])
  sys.path.insert(0, str(folder))
  import refweights

  for number, (name, row) in enumerate(CASES.items()):
    if sys.argv[2:] and name not in sys.argv[2:]:
      continue
    code, model_name, options, size = row
    model, shapes = build(code, model_name, options)
    num_classes = options.get("num_classes") or options.get("num_labels")
    case = {
      "name": name,
      "source": versions(code),
      "model": {**options, "name": model_name, "num_classes": num_classes},
      "seed": 401 + number,
      "image_shape": [2 if "mini" in name else 1, *size, 3],
      "shapes": shapes,
      "rules": RULES,
    }
    model = load(code, model, refweights.weights(case))
    image = torch.from_numpy(refweights.images(case)).permute(0, 3, 1, 2)
    with torch.no_grad():
      out = model(image)
    if code == "transformers":
      out = out.logits if num_classes else out.pooler_output
    case["outputs"] = {"logits": out.tolist()}
    file = folder / f"{name}.json"
    file.write_text(json.dumps(case) + "\n")
    print(file, float(out.abs().max()), flush=True)


if __name__ == "__main__":
  main()
