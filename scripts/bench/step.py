"""Train step and forward pass of ViT-S/16, 224 px, on a CPU.

In float32 and bfloat16, against the same step as flax.linen and optax suggest
it (`plain.py`) in float32, and, where torch and timm are installed, against
timm's model with torch's AdamW in both. With torch, bfloat16 is `autocast`.
"""

import functools
import importlib.util
from collections.abc import Callable

import jax
import numpy as np

from scripts.bench import plain, recipe, turns

BATCH = 16


def makers() -> dict[str, Callable]:
  """Name -> function of a batch that returns what to call: (train, forward)."""
  found = {"vitjax": _ours, "linen": _plain}
  if importlib.util.find_spec("torch") and importlib.util.find_spec("timm"):
    found["timm"] = _timm
  in_half = {
    f"{name}_bfloat16": functools.partial(found[name], dtype="bfloat16")
    for name in ("vitjax", "timm")
    if name in found
  }
  return found | in_half


def _ours(batch, dtype="float32"):
  from vitjax.parallel import sharding

  parts, state = recipe.make(len(batch["label"]), dtype=dtype)
  device_batch = jax.device_put(batch, sharding.over_batch(parts.mesh))
  apply = jax.jit(
    lambda params, batch: parts.model.apply(
      {"params": params}, parts.preprocess.on_device(batch)["image"]
    )[0]
  )

  def train():
    nonlocal state
    state, metrics = parts.train_step(state, device_batch)
    return jax.block_until_ready(metrics)

  return train, lambda: jax.block_until_ready(apply(state.params, device_batch))


def _plain(batch):
  state, step = plain.make(batch["image"].shape, 1000)
  apply = jax.jit(
    lambda params, image: plain.ViT().apply(
      {"params": params}, image.astype("float32") / 127.5 - 1
    )
  )
  batch = jax.device_put(batch)
  key = jax.random.key(0)

  def train():
    nonlocal state
    state, loss = step(state, batch, key)
    return jax.block_until_ready(loss)

  return train, lambda: jax.block_until_ready(
    apply(state.params, batch["image"])
  )


def _timm(batch, dtype="float32"):
  import timm
  import torch
  from torch.nn import functional

  model = timm.create_model("vit_small_patch16_224", num_classes=1000)
  optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=1e-4)
  image = torch.tensor(batch["image"]).permute(0, 3, 1, 2).contiguous()
  label = functional.one_hot(torch.tensor(batch["label"]).long(), 1000).float()

  def train():
    x, y = image.float() / 127.5 - 1, label
    part = 0.7
    x = part * x + (1 - part) * x.roll(1, 0)
    y = part * y + (1 - part) * y.roll(1, 0)
    optimizer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, dtype == "bfloat16"):
      logits = model(x)
    functional.cross_entropy(logits.float(), y).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()

  def forward():
    cast = torch.autocast("cpu", torch.bfloat16, dtype == "bfloat16")
    with torch.inference_mode(), cast:
      model(image.float() / 127.5 - 1)

  return train, forward


def measure(repetitions: int) -> list[dict]:
  """Rows: seconds, images per second, times as fast as plain Linen."""
  rows = []
  batch = recipe.example_batch(BATCH)
  made = {name: make(batch) for name, make in makers().items()}
  for i, kind in enumerate(("train_step", "forward")):
    calls = {name: both[i] for name, both in made.items()}
    found = turns.seconds(calls, repetitions)
    for name, seconds in found.items():
      rows.append(
        {
          "benchmark": kind,
          "contestant": name,
          "batch_size": BATCH,
          "seconds": turns.summary(seconds),
          "images_per_second": turns.summary(BATCH / np.array(seconds)),
          "times_linen": turns.ratios(found, name, "linen"),
        }
      )
  return rows
