"""Tiny repositories in the forms that timm and transformers write."""

import json
import pathlib

import numpy as np

from vitjax import models, trees, weights
from vitjax.weights import fitting, layouts

SIZE = 32
TIMM = {
  "architecture": "vit_base_patch16_224",
  "num_classes": 3,
  "num_features": 16,
  "global_pool": "token",
  "model_args": {
    "img_size": SIZE,
    "patch_size": 16,
    "embed_dim": 16,
    "depth": 1,
    "num_heads": 2,
    "mlp_ratio": 2.0,
  },
  "label_names": ["n1", "n2", "n3"],
  "label_descriptions": {"n1": "ant", "n2": "bee", "n3": "cat"},
  "pretrained_cfg": {
    "tag": "augreg_in21k_ft_in1k",
    "input_size": [3, SIZE, SIZE],
    "interpolation": "bicubic",
    "crop_pct": 0.9,
    "crop_mode": "center",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "num_classes": 3,
  },
}
TRANSFORMERS = {
  "model_type": "vit",
  "architectures": ["ViTForImageClassification"],
  "hidden_size": 16,
  "num_hidden_layers": 1,
  "num_attention_heads": 2,
  "intermediate_size": 32,
  "hidden_act": "gelu",
  "layer_norm_eps": 1e-12,
  "image_size": SIZE,
  "patch_size": 16,
  "id2label": {"0": "ant", "1": "bee", "2": "cat"},
}
PROCESSOR = {
  "image_processor_type": "ViTImageProcessor",
  "size": {"height": SIZE, "width": SIZE},
  "resample": 2,
  "image_mean": [0.485, 0.456, 0.406],
  "image_std": [0.229, 0.224, 0.225],
}
_FIELDS = {
  "width": 16,
  "depth": 1,
  "num_heads": 2,
  "mlp_dim": 32,
  "patch_size": 16,
  "pool_type": "tok",
  "posemb_prefix": True,
  "gelu": "erf",
  "num_classes": 3,
}


def random_params(model, seed=0):
  """Trained-looking weights of a model for images of `SIZE` pixels."""
  shapes = fitting.shapes(model, fitting.example_inputs(model, SIZE))
  rng = np.random.default_rng(seed)
  return trees.unflatten(
    {
      name: rng.normal(size=x.shape).astype(np.float32) * 0.5
      for name, x in shapes.items()
    }
  )


def vit(eps: float = 1e-6):
  """The model of both repositories."""
  return models.create("vit", **_FIELDS, layer_norm_eps=eps)


def arrays(layout: str, model=None, seed=0) -> dict[str, np.ndarray]:
  """The arrays of `vit` by their names in a layout."""
  model = model or vit()
  flat = trees.flatten(random_params(model, seed))
  return layouts.get(layout).from_vitjax(flat, model)


def safetensors(flat, folder: pathlib.Path) -> bytes:
  """The bytes of a file with these arrays."""
  file = folder / "x.safetensors"
  weights.files.write(file, flat)
  return file.read_bytes()


OPEN_CLIP = {
  "embed_dim": 16,
  "quick_gelu": True,
  "vision_cfg": {
    "image_size": SIZE,
    "patch_size": 8,
    "width": 32,
    "head_width": 8,
    "layers": 1,
    "mlp_ratio": 2.7,
  },
  "text_cfg": {
    "context_length": 11,
    "vocab_size": 515,
    "width": 24,
    "heads": 2,
    "layers": 1,
  },
}
OPEN_CLIP_IMAGES = {
  "mean": [0.5, 0.4, 0.3],
  "std": [0.2, 0.3, 0.4],
  "interpolation": "bicubic",
  "resize_mode": "shortest",
}


def clip():
  """The model of `open_clip`."""
  both = {
    "num_classes": 16,
    "head_bias": False,
    "gelu": "quick",
    "layer_norm_eps": 1e-5,
  }
  image = {
    "patch_size": 8,
    "width": 32,
    "depth": 1,
    "num_heads": 4,
    "mlp_dim": 86,
    "pool_type": "tok",
    "posemb_prefix": True,
    "pre_norm": True,
  }
  text = {
    "width": 24,
    "depth": 1,
    "num_heads": 2,
    "vocab_size": 515,
    "max_len": 11,
    "pool_type": "eot",
    "causal": True,
  }
  return models.create("two_tower", image={**image, **both}, text=text | both)


def open_clip(folder: pathlib.Path, **changes) -> dict[str, bytes]:
  """The files of a repository of OpenCLIP: a CLIP, and one merge."""
  config = {
    "model_cfg": {**OPEN_CLIP, **changes},
    "preprocess_cfg": OPEN_CLIP_IMAGES,
  }
  return {
    "open_clip_config.json": encode(config),
    "open_clip_model.safetensors": safetensors(
      arrays("open_clip", clip()), folder
    ),
    "merges.txt": b"#version: 0.2\na n\n",
  }


def encode(content) -> bytes:
  return json.dumps(content).encode()


def timm(folder: pathlib.Path, **changes) -> dict[str, bytes]:
  """The files of a repository of timm."""
  return {
    "config.json": encode({**TIMM, **changes}),
    "model.safetensors": safetensors(arrays("timm_vit"), folder),
  }


def transformers(folder: pathlib.Path, **changes) -> dict[str, bytes]:
  """The files of a repository of transformers."""
  return {
    "config.json": encode({**TRANSFORMERS, **changes}),
    "preprocessor_config.json": encode(PROCESSOR),
    "model.safetensors": safetensors(arrays("hf_vit"), folder),
  }
