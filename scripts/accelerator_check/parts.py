"""The parts of the check, the most valuable first."""

import dataclasses
import importlib

from scripts.accelerator_check import attention, families, networks


@dataclasses.dataclass(frozen=True)
class Part:
  """A part of the check.

  Attributes:
    kind: name of the module that runs it.
    case: argument of the module's `run`.
    seconds: time limit.
    alone: whether it has a process of its own; else the parts of a kind share
      one, which starts JAX once.
  """

  kind: str
  case: str = ""
  seconds: int = 60
  alone: bool = True

  @property
  def name(self) -> str:
    return f"{self.kind} {self.case}".strip()

  def run(self, tiny: bool) -> dict:
    """The facts of the part.

    Raises:
      skip.Skip: if it is not possible here.
    """
    module = importlib.import_module(f"scripts.accelerator_check.{self.kind}")
    return module.run(self.case, tiny)


def every() -> list[Part]:
  """All parts in order."""
  beside = (
    Part(kind, name, seconds)
    for name in networks.NETWORKS
    for kind, seconds in (("networks", 90), ("timm", 60))
  )
  return [
    Part("doctor", seconds=120),
    Part("tests", seconds=180),
    *(Part("attention", x, 40, alone=False) for x in attention.CASES),
    *(Part("families", x, 60, alone=False) for x in families.CASES),
    *beside,
    Part("feed", seconds=60),
    Part("checkpoint", seconds=60),
    Part("resume", seconds=120),
    Part("input", seconds=120),
    *(Part("timm_compiled", x, 150) for x in networks.NETWORKS),
  ]
