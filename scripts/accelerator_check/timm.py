"""The same networks of timm in torch, as fast as torch makes them.

bfloat16 autocast, channels last, fused attention (SDPA) and fused AdamW;
`timm_compiled` compiles the network too. Inputs, batches and optimizer are
those of `networks`.
"""

import time

from scripts.accelerator_check import networks, skip


def run(case: str, tiny: bool, compiled: bool = False) -> dict:
  for package in ("torch", "timm"):
    skip.without(package, "the comparison with timm")
  import timm
  import torch
  from torch.nn import functional

  if not tiny and not torch.cuda.is_available():
    raise skip.Skip("torch finds no GPU.")
  on_gpu = not tiny and torch.cuda.is_available()
  device = torch.device("cuda" if on_gpu else "cpu")
  contestant, batch = networks.setting(case, tiny)
  model = timm.create_model(
    contestant.timm,
    num_classes=1000,
    **(contestant.timm_tiny if tiny else {}),
  )
  model = model.to(device, memory_format=torch.channels_last)
  optimizer = torch.optim.AdamW(
    model.parameters(), 1e-3, weight_decay=1e-4, fused=True
  )
  network = torch.compile(model) if compiled else model
  image = torch.tensor(batch["image"], device=device).permute(0, 3, 1, 2)
  label = torch.tensor(batch["label"], device=device).long()

  def logits():
    pixels = image.float() / 127.5 - 1
    with torch.autocast(device.type, torch.bfloat16):
      return network(pixels)

  def train():
    network.train()
    optimizer.zero_grad()
    loss = functional.cross_entropy(logits().float(), label)
    loss.backward()
    optimizer.step()
    return loss

  def forward():
    network.eval()
    with torch.inference_mode():
      return logits()

  def wait(result):
    float(result.sum())  # reads it, so all before it is done

  start = time.perf_counter()
  wait(train())
  facts = {
    "batch": len(label),
    "dtype": "bfloat16",
    "compile_seconds": time.perf_counter() - start,
    "train": networks.rates(train, wait, len(label), tiny),
  }
  if on_gpu:
    facts["peak_bytes"] = torch.cuda.max_memory_allocated()
  facts["forward"] = networks.rates(forward, wait, len(label), tiny)
  return facts
