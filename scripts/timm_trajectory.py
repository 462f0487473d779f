"""Ten steps of PyTorch on a small RegNetY of timm, as a reference case.

  python -m scripts.timm_trajectory \
    tests/golden/reference/traj_timm_regnety.json   # where timm is installed
  python -m scripts.timm_trajectory \
    tests/golden/reference/traj_timm_regnety_float64.json --float64

Trains with SGD and momentum, weight decay on what has more than one axis, and
a warm-up and a cosine: the recipe of ResNet-50. Weights and images are made
from names and a seed, see `tests/golden/reference/refweights.py`. Needs
PyTorch and timm, and nothing of vitjax:

  pip install torch==2.14.1 torchvision==0.29.1 timm==1.0.31
"""

import json
import math
import pathlib
import sys

import numpy as np

REFERENCE = pathlib.Path(__file__).parents[1] / "tests/golden/reference"
CASE = {
  "source": "timm 1.0.31, torch 2.14.1",
  "model": {
    "depths": [1, 1, 2, 1],
    "widths": [16, 32, 64, 128],
    "group_width": 8,
    "resolution": [64, 48],
    "num_classes": 10,
  },
  "recipe": {
    "lr": 0.003,
    "momentum": 0.9,
    "wd": 1e-2,
    "warmup_steps": 3,
    "decay": "cosine",
  },
  "loss": "softmax_xent",
  "labels": "arange(16) % num_classes",
  "total_steps": 10,
  "seed": 311,
  "image_shape": [16, 64, 48, 3],
}


def main() -> None:
  import timm.models.regnet
  import torch

  sys.path.insert(0, str(REFERENCE))
  import refweights

  fields = CASE["model"]
  model = timm.models.regnet.RegNet(
    timm.models.regnet.RegNetCfg(
      depth=5, w0=16, wa=24.0, wm=2.0, group_size=8, se_ratio=0.25
    ),
    num_classes=fields["num_classes"],
  )
  state = {
    name: x
    for name, x in model.state_dict().items()
    if not name.endswith("num_batches_tracked")
  }
  shapes = {name: list(x.shape) for name, x in state.items()}
  out = pathlib.Path(sys.argv[1])
  case = {**CASE, "name": out.stem, "shapes": shapes}
  weights = refweights.weights(case)
  double = "--float64" in sys.argv
  tensors = {name: torch.from_numpy(x) for name, x in weights.items()}
  model.load_state_dict(tensors, strict=False)
  dtype = torch.float64 if double else torch.float32
  model = model.to(dtype)
  image = torch.from_numpy(refweights.images(case).transpose(0, 3, 1, 2).copy())
  image = image.to(dtype)
  label = torch.arange(len(image)) % fields["num_classes"]

  recipe, total = case["recipe"], case["total_steps"]
  decayed = [p for p in model.parameters() if p.ndim > 1]
  others = [p for p in model.parameters() if p.ndim <= 1]
  optimizer = torch.optim.SGD(
    [{"params": decayed, "weight_decay": recipe["wd"]}, {"params": others}],
    lr=recipe["lr"],
    momentum=recipe["momentum"],
  )
  losses, norms = [], []
  model.train()
  for step in range(total):
    after = max(step - recipe["warmup_steps"], 0)
    progress = after / (total - recipe["warmup_steps"])
    factor = min(step / recipe["warmup_steps"], 1)
    factor *= 0.5 * (1 + math.cos(math.pi * progress))
    for group in optimizer.param_groups:
      group["lr"] = recipe["lr"] * factor
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(model(image), label)
    loss.backward()
    squares = [p.grad.double().square().sum() for p in model.parameters()]
    norms.append(float(torch.stack(squares).sum().sqrt()))
    losses.append(loss.item())
    optimizer.step()
  model.eval()
  with torch.no_grad():
    logits = model(image)
  squares = [p.detach().double().square().sum() for p in model.parameters()]
  case["outputs"] = {
    "loss_before_each_step": losses,
    "grad_norm": norms,
    "final_params_l2": float(torch.stack(squares).sum().sqrt()),
    "final_logits_eval": logits.double().numpy().round(7).tolist(),
    "running_after": {
      name: x.double().numpy().round(9).tolist()
      for name, x in model.state_dict().items()
      if "running" in name
    },
  }
  out.write_text(json.dumps(case) + "\n")
  print("losses", np.round(losses, 4), "norms", np.round(norms, 3))


if __name__ == "__main__":
  main()
