"""Changes of a config that make its train step need less memory."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from vitjax import models
from vitjax.config import plain, resolving
from vitjax.config.schema import RunConfig


@dataclasses.dataclass(frozen=True)
class Change:
  """Overrides of a config to try if its step does not fit."""

  name: str
  overrides: Mapping[str, Any]

  def __str__(self):
    flags = " ".join(f"--config.{k}={v}" for k, v in self.overrides.items())
    return f"{self.name}: {flags}"


def with_overrides(run: RunConfig, overrides: Mapping[str, Any]) -> RunConfig:
  """The run with other values at these dotted paths."""
  config = plain.to_dict(run)
  for path, value in overrides.items():
    *sections, key = path.split(".")
    section = config
    for name in sections:
      section = section.setdefault(name, {})
    section[key] = value
  return resolving.resolve(config)


def changes(run: RunConfig, num_devices: int) -> Iterator[Change]:
  """Changes to try if a step does not fit, the smallest first.

  All but a smaller batch compute the same, to rounding.
  """
  known = models.options(run.model["name"])

  def accumulate(times):
    steps = run.accumulation_steps * times
    if run.input.batch_size % (steps * num_devices) == 0:
      yield Change(f"accumulation x{times}", {"accumulation_steps": steps})

  def remat(policy):
    if "remat" in known and run.model.get("remat", "none") == "none":
      yield Change(f"remat {policy}", {"model.remat": policy})

  yield from accumulate(2)
  yield from remat("dots")
  yield from accumulate(4)
  yield from remat("full")
  for times in (8, 16, 32):
    yield from accumulate(times)
  if known.get("scan_layers") and not run.model.get("scan_layers"):
    yield Change("scan over layers", {"model.scan_layers": True})
  if run.sharding in ("replicated", ()) and num_devices > 1:
    fsdp = {"sharding": "fsdp", "mesh.data": 1, "mesh.fsdp": -1}
    yield Change("sharding fsdp", fsdp)
    if "remat" in known:
      both = {**fsdp, "model.remat": "full"}
      yield Change("sharding fsdp, remat full", both)
    heads = _num_heads(run)
    for parts in (2, 4, 8):
      if heads and heads % parts == 0 and num_devices % parts == 0:
        tensor = {"sharding": "tensor", "mesh.model": parts}
        yield Change(f"sharding tensor over {parts}", tensor)
  for parts in (2, 4, 8, 16):
    size = run.input.batch_size // parts
    if size % (num_devices * run.accumulation_steps) == 0:
      yield Change(f"batch of {size}", {"input.batch_size": size})


def _num_heads(run: RunConfig) -> int | None:
  section = dict(run.model)
  return getattr(models.create(section.pop("name"), **section), "num_heads", 0)
