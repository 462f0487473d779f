"""See `timm`, with `torch.compile`."""

from scripts.accelerator_check import skip, timm


def run(case: str, tiny: bool) -> dict:
  if tiny:
    raise skip.Skip("torch.compile takes minutes on a CPU.")
  return timm.run(case, tiny, compiled=True)
