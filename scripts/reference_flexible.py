r"""FlexiViT by its published code, as a reference case.

  PYTHONPATH=big_vision python -m scripts.reference_flexible \
    tests/golden/reference

Writes the shapes of the parameters and the logits for random images at several
patch sizes. Weights and images are made from names and a seed, see
`refweights.py` in the same folder. Needs a checkout of
https://github.com/google-research/big_vision; the case was made at 0127fb6.
"""

import json
import pathlib
import sys

import jax
import numpy as np

# The kernel of 16 pixels and the table of 7x7 are resized, up and down.
MODEL = {
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


def main() -> None:
  from big_vision.models.proj.flexi import vit

  folder = pathlib.Path(sys.argv[1])
  sys.path.insert(0, str(folder))
  import refweights

  model = vit._Model(**MODEL)
  image = np.zeros((1, SIDE, SIDE, 3), np.float32)
  variables = jax.eval_shape(model.init, jax.random.key(0), image)
  paths, tree = jax.tree_util.tree_flatten_with_path(variables)
  shapes = {
    "/".join(key.key for key in path): list(x.shape) for path, x in paths
  }
  case = {
    "name": "mini_flexivit",
    "source": "google-research/big_vision 0127fb6",
    "model": MODEL,
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
  file = folder / "mini_flexivit.json"
  file.write_text(json.dumps(case) + "\n")
  print(file, {k: np.abs(x).max() for k, x in case["outputs"].items()})


if __name__ == "__main__":
  main()
