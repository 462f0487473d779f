"""Train step and forward pass of convolutional networks.

At 224 px, in float32, with SGD and momentum; against timm's models with torch's
SGD, where both are installed.
"""

import importlib.util
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from scripts.bench import network, recipe, turns

BATCH = 16
MODELS = (
  "resnet50",
  "regnety_032",
  "efficientnet_b0",
  "convnext_tiny",
  "dm_nfnet_f0",
)


def makers() -> dict[str, Callable]:
  """Name -> function of a model and a batch: (train, forward)."""
  found = {"vitjax": _ours}
  if importlib.util.find_spec("torch") and importlib.util.find_spec("timm"):
    found["timm"] = _timm
  return found


def _ours(name: str, batch):
  made = network.make(name, network.SGD)
  state = made.init(jax.random.key(0))
  weights = jax.tree.map(jnp.copy, state.weights)
  batch = jax.device_put(batch)

  def train():
    nonlocal state
    state, metrics = made.train(state, batch)
    return jax.block_until_ready(metrics)

  return train, lambda: jax.block_until_ready(made.predict(weights, batch)[0])


def _timm(name: str, batch):
  import timm
  import torch
  from torch.nn import functional

  model = timm.create_model(name, num_classes=1000)
  optimizer = torch.optim.SGD(
    model.parameters(), 0.01, momentum=0.9, weight_decay=1e-4
  )
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
  """Rows: seconds, images per second, times as fast as timm."""
  rows = []
  batch = recipe.example_batch(BATCH)
  for model in MODELS:
    made = {name: make(model, batch) for name, make in makers().items()}
    for i, kind in enumerate(("train_step", "forward")):
      calls = {name: both[i] for name, both in made.items()}
      found = turns.seconds(calls, repetitions)
      for name, seconds in found.items():
        row = {
          "benchmark": f"{model} {kind}",
          "contestant": name,
          "batch_size": BATCH,
          "seconds": turns.summary(seconds),
          "images_per_second": turns.summary(BATCH / np.array(seconds)),
        }
        if "timm" in found:
          row["times_timm"] = turns.ratios(found, name, "timm")
        rows.append(row)
  return rows
