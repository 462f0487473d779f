"""Train step and forward pass of a network: speed, compile time, memory.

bfloat16 with Adam on an accelerator, batches that lie on the device. Memory is
the device's own peak after the train steps; on a CPU, where it has none, that
of the process. `planned_bytes` is what `vitjax.plan` compares with the memory
of a device, by the compiler, and `estimated_bytes` what it says without one.
"""

import dataclasses
import resource
import time
from collections.abc import Mapping
from typing import Any

import jax

from scripts.bench import network, recipe, turns


@dataclasses.dataclass(frozen=True)
class Contestant:
  """A network here and in timm.

  Attributes:
    model, options: arguments of `models.create`.
    batch: images of a step; 24 GB suffice.
    timm: timm's name of the same architecture.
    tiny, timm_tiny: options of a tiny one.
  """

  model: str
  options: Mapping[str, Any]
  batch: int
  timm: str
  tiny: Mapping[str, Any]
  timm_tiny: Mapping[str, Any]


def _vit(size: str, batch: int, name: str) -> Contestant:
  return Contestant(
    "vit",
    {"variant": f"{size}/16", "pool_type": "tok"},
    batch,
    f"vit_{name}_patch16_224",
    {"depth": 1, "width": 32, "num_heads": 2, "mlp_dim": 64},
    {"depth": 1, "embed_dim": 32, "num_heads": 2, "img_size": 32},
  )


_SMALL = {"depths": (1, 1, 1, 1)}
NETWORKS = {
  "S/16": _vit("S", 256, "small"),
  "B/16": _vit("B", 128, "base"),
  "L/16": _vit("L", 48, "large"),
  "ConvNeXt-T": Contestant(
    "convnext",
    {"variant": "T"},
    128,
    "convnext_tiny",
    {**_SMALL, "widths": (8, 8, 16, 16)},
    {**_SMALL, "dims": (8, 8, 16, 16)},
  ),
  "Swin-T": Contestant(
    "swin",
    {"variant": "T"},
    128,
    "swin_tiny_patch4_window7_224",
    {"width": 16, "depths": (1, 1), "num_heads": (1, 2), "window": 4},
    {
      "embed_dim": 16,
      "depths": (1, 1),
      "num_heads": (1, 2),
      "window_size": 4,
      "img_size": 32,
    },
  ),
  "EfficientNet-B0": Contestant(
    "efficientnet",
    {"variant": "b0"},
    128,
    "efficientnet_b0",
    {"depths": (1, 1, 1, 1, 1, 1, 1), "widths": (8, 8, 8, 16, 16, 16, 16)},
    {},
  ),
}
_CALLS = 10  # of a measurement, without waiting in between


def setting(case: str, tiny: bool) -> tuple[Contestant, dict]:
  """The contestant and a batch for it."""
  contestant = NETWORKS[case]
  size = (2, 32) if tiny else (contestant.batch, 224)
  return contestant, recipe.example_batch(*size)


def rates(call, wait, batch_size: int, tiny: bool) -> dict:
  """Images per second; `wait` gets the last result of `call`."""
  calls = 1 if tiny else _CALLS

  def several():
    for _ in range(calls):
      result = call()
    wait(result)

  found = turns.seconds({"": several}, 1 if tiny else 5)[""]
  return turns.summary([calls * batch_size / x for x in found])


def run(case: str, tiny: bool) -> dict:
  from vitjax import models
  from vitjax.models import flops
  from vitjax.parallel import memory
  from vitjax.plan import liveness

  contestant, batch = setting(case, tiny)
  device = jax.devices()[0]
  options = {**contestant.options, **(contestant.tiny if tiny else {})}
  options["dtype"] = models.default_dtype(device.platform)
  images, size = batch["image"].shape[:2]
  made = network.make(
    contestant.model, network.ADAM, image_size=size, **options
  )
  state = made.init(jax.random.key(0))
  batch = jax.device_put(batch, device)
  start = time.perf_counter()
  traced = made.train.trace(state, batch)
  step = traced.lower().compile()
  temporaries = liveness.temporary_bytes(
    traced.jaxpr, _bytes(state.params), device.platform
  )
  facts = {
    "batch": images,
    "dtype": options["dtype"],
    "estimated_bytes": _bytes((state, batch)) + temporaries,
    "compile_seconds": time.perf_counter() - start,
    "planned_bytes": memory.used_bytes(step),
  }

  def train():
    nonlocal state
    state, metrics = step(state, batch)
    return metrics

  facts["train"] = rates(train, jax.block_until_ready, images, tiny)
  facts["peak_bytes"] = _peak(device)
  operations = flops.matrix_products(traced.jaxpr.jaxpr)
  per_second = facts["train"]["median"] / images
  facts["matrix_tflops"] = operations * per_second / 1e12
  weights = state.weights
  forward = made.predict.lower(weights, batch).compile()
  facts["forward"] = rates(
    lambda: forward(weights, batch), jax.block_until_ready, images, tiny
  )
  return facts


def _bytes(tree) -> int:
  return sum(x.nbytes for x in jax.tree.leaves(tree))


def _peak(device: jax.Device) -> int:
  stats = device.memory_stats() or {}
  if "peak_bytes_in_use" in stats:
    return stats["peak_bytes_in_use"]
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
