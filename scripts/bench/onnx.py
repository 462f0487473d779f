"""Forward pass in ONNX Runtime, in JAX and of timm's models in PyTorch.

224 px, float32, on all cores.
ONNX Runtime and timm are measured where they are installed.
"""

import importlib.util
import pathlib
import tempfile
from collections.abc import Callable, Iterator

import jax
import numpy as np

from scripts.bench import recipe, turns

BATCH = 16
# Name of ours -> name of timm's.
MODELS = {
  "ViT-S_16": "vit_small_patch16_224",
  "convnext_atto": "convnext_atto",
  "efficientnet_b0": "efficientnet_b0",
  "efficientnet_lite0": "efficientnet_lite0",
  "resnet50": "resnet50",
  "swin_tiny_patch4_window7_224": "swin_tiny_patch4_window7_224",
}


def _ours(name: str, image: np.ndarray) -> dict[str, Callable]:
  """Both of vitjax: the compiled function, and the file."""
  from vitjax import models, trained
  from vitjax.graphs import forward, onnx_file
  from vitjax.models import batch_norm

  model = models.create(name, num_classes=1000)
  variables = jax.jit(model.init)(jax.random.key(0), image[:1])
  shape = image.shape[1:]
  function = forward.of_images(
    trained.Trained(
      model=model,
      params=batch_norm.join(variables),
      image_size=shape[:2],
      channels=shape[2],
      preprocess="value_range(-1, 1)",
      class_names=None,
      metadata={"loss": "softmax_xent"},
    ),
    "tensor",
  )
  compiled, on_device = jax.jit(function.function), jax.device_put(variables)
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "m.onnx"
    onnx_file.write(onnx_file.convert(function), path)
    session = onnx_file.Session(path)
  return {
    "vitjax": lambda: jax.block_until_ready(compiled(on_device, image)),
    "onnxruntime": lambda: session(image),
  }


def _timm(name: str, image: np.ndarray) -> Callable:
  import timm
  import torch

  model = timm.create_model(name, num_classes=1000).eval()
  tensor = torch.tensor(image).permute(0, 3, 1, 2).contiguous()

  def forward():
    with torch.inference_mode():
      model(tensor)

  return forward


def measure(repetitions: int) -> Iterator[dict]:
  """Rows, model by model: seconds, images/s, times as fast as vitjax."""
  if not importlib.util.find_spec("onnxruntime"):
    return
  image = recipe.example_batch(BATCH)["image"].astype(np.float32) / 127.5 - 1
  for name, timms in MODELS.items():
    calls = _ours(name, image)
    if importlib.util.find_spec("torch") and importlib.util.find_spec("timm"):
      calls["timm"] = _timm(timms, image)
    found = turns.seconds(calls, repetitions)
    for contestant, seconds in found.items():
      yield {
        "benchmark": f"{name} forward",
        "contestant": contestant,
        "batch_size": BATCH,
        "seconds": turns.summary(seconds),
        "images_per_second": turns.summary(BATCH / np.array(seconds)),
        "times_vitjax": turns.ratios(found, contestant, "vitjax"),
      }
