"""Train step and forward pass of convolutional networks, 224 px, float32.

SGD with momentum on uint8 images, against the same with timm's model where
torch and timm are installed.
"""

import importlib.util

import jax
import numpy as np

from configs import resnet50
from scripts.bench import recipe, turns

BATCH = 16
NAMES = ("efficientnet_b0",)


def _ours(name, batch):
  from vitjax.models import batch_norm

  config = resnet50.get_config(f"batch={BATCH}")
  config.model = {"name": name}
  parts, state = recipe.start(config)
  device_batch = jax.device_put(batch)

  @jax.jit
  def apply(weights, batch):
    image = parts.preprocess.on_device(batch)["image"]
    return parts.model.apply(batch_norm.split(weights), image)[0]

  def train():
    nonlocal state
    state, metrics = parts.train_step(state, device_batch)
    return jax.block_until_ready(metrics)

  return train, lambda: jax.block_until_ready(
    apply(state.weights, device_batch)
  )


def _timm(name, batch):
  import timm
  import torch
  from torch.nn import functional

  model = timm.create_model(name, num_classes=1000)
  optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
  image = torch.tensor(batch["image"]).permute(0, 3, 1, 2).contiguous()
  label = torch.tensor(batch["label"]).long()

  def train():
    model.train()
    optimizer.zero_grad()
    logits = model(image.float() / 127.5 - 1)
    functional.cross_entropy(logits, label).backward()
    optimizer.step()

  def forward():
    model.eval()
    with torch.inference_mode():
      model(image.float() / 127.5 - 1)

  return train, forward


def measure(repetitions: int) -> list[dict]:
  """Rows: seconds, images per second, and how many times as fast as timm."""
  batch = recipe.example_batch(BATCH)
  makers = {"vitjax": _ours}
  if importlib.util.find_spec("torch") and importlib.util.find_spec("timm"):
    makers["timm"] = _timm
  rows = []
  for name in NAMES:
    made = {who: make(name, batch) for who, make in makers.items()}
    for i, kind in enumerate(("train_step", "forward")):
      calls = {who: both[i] for who, both in made.items()}
      found = turns.seconds(calls, repetitions)
      for who, seconds in found.items():
        row = {
          "benchmark": f"{name}_{kind}",
          "contestant": who,
          "batch_size": BATCH,
          "seconds": turns.summary(seconds),
          "images_per_second": turns.summary(BATCH / np.array(seconds)),
        }
        if "timm" in found:
          row["times_timm"] = turns.ratios(found, who, "timm")
        rows.append(row)
  return rows
