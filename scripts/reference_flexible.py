r"""FlexiViT and SigLIP 2 NaFlex by their published code, as reference cases.

  PYTHONPATH=big_vision:. python -m scripts.reference_flexible flexivit \
    tests/golden/reference
  python -m scripts.reference_flexible naflex tests/golden/reference

Writes the shapes of the parameters and the outputs for random images: of
FlexiViT at several patch sizes, of NaFlex for images that are not square, and
for a batch of images of several shapes.
Weights and images are made from names and a seed, see `refweights.py` in the
same folder. The first needs a checkout of google-research/big_vision (made at
0127fb6), the second what `reference_backbones` needs.
"""

import json
import pathlib
import sys
from typing import Any

import numpy as np

Case = dict[str, Any]

# The kernel of 16 pixels and the table of 7x7 are resized, up and down.
FLEXIVIT = {
  "num_classes": 10,
  "patch_size": (16, 16),
  "posemb_size": (7, 7),
  "width": 32,
  "depth": 2,
  "mlp_dim": 64,
  "num_heads": 2,
  "pool_type": "tok",
}
SIDE = 48
PATCH_SIZES = (4, 6, 12, 16, 24)

# The table of 4x4 is resized to 3x6.
NAFLEX = {
  "hidden_size": 32,
  "intermediate_size": 64,
  "num_hidden_layers": 2,
  "num_attention_heads": 2,
  "patch_size": 8,
  "num_patches": 16,
}
# Rows and columns of the images of one batch, padded to 20 patches.
GRIDS = ((3, 6), (5, 2), (4, 4), (1, 20))
LENGTH = 20


def flexivit(refweights) -> Case:
  """big_vision's FlexiViT: patch size -> logits."""
  import jax
  from big_vision.models.proj.flexi import vit

  model = vit.Model(**FLEXIVIT)
  image = np.zeros((1, SIDE, SIDE, 3), np.float32)
  variables = jax.eval_shape(model.init, jax.random.key(0), image)
  paths, tree = jax.tree_util.tree_flatten_with_path(variables)
  shapes = {"/".join(k.key for k in path): list(x.shape) for path, x in paths}
  case = {
    "name": "mini_flexivit",
    "source": "google-research/big_vision 0127fb6",
    "model": FLEXIVIT,
    "seed": 431,
    "image_shape": [2, SIDE, SIDE, 3],
    "shapes": shapes,
  }
  flat = refweights.weights(case)
  variables = jax.tree.unflatten(tree, [flat[name] for name in shapes])
  image = refweights.images(case)
  with jax.default_matmul_precision("highest"):
    case["outputs"] = {
      str(size): np.asarray(
        model.apply(variables, image, seqhw=SIDE // size)[0]
      ).tolist()
      for size in PATCH_SIZES
    }
  return case


def naflex(refweights) -> Case:
  """The image tower of transformers' Siglip2Model: pooled features."""
  import torch

  from scripts import reference_backbones

  code = "transformers"
  model, shapes = reference_backbones.build(code, "Siglip2VisionModel", NAFLEX)
  case = {
    "name": "mini_naflex",
    "source": reference_backbones.versions(code),
    "model": {**NAFLEX, "num_classes": None},
    "seed": 432,
    "image_shape": [2, 24, 48, 3],
    "grids": GRIDS,
    "length": LENGTH,
    "shapes": shapes,
  }
  model = reference_backbones.load(code, model, refweights.weights(case))
  image = torch.from_numpy(refweights.images(case))
  patches = image.reshape(2, 3, 8, 6, 8, 3).transpose(2, 3).reshape(2, 18, -1)
  with torch.no_grad():
    out = model(
      pixel_values=patches,
      pixel_attention_mask=torch.ones(2, 18, dtype=torch.long),
      spatial_shapes=torch.tensor([[3, 6]] * 2),
    )
    mixed = np.zeros((len(GRIDS), LENGTH, 8 * 8 * 3), np.float32)
    for row, patches in zip(mixed, refweights.grids(case)):
      row[: len(patches)] = patches.reshape(len(patches), -1)
    counts = torch.tensor(GRIDS).prod(dim=1)
    more = model(
      pixel_values=torch.from_numpy(mixed),
      pixel_attention_mask=torch.arange(LENGTH)[None] < counts[:, None],
      spatial_shapes=torch.tensor(GRIDS),
    )
  case["outputs"] = {
    "logits": out.pooler_output.tolist(),
    "mixed": more.pooler_output.tolist(),
  }
  return case


def main() -> None:
  _, name, folder = sys.argv
  sys.path.insert(0, folder)
  import refweights

  case = {"flexivit": flexivit, "naflex": naflex}[name](refweights)
  file = pathlib.Path(folder) / f"{case['name']}.json"
  file.write_text(json.dumps(case) + "\n")
  print(file)


if __name__ == "__main__":
  main()
