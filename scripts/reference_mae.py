r"""Makes the reference case of masked autoencoders from the published code.

  python -m scripts.reference_mae --code=FOLDER tests/golden/reference

FOLDER is a checkout of https://github.com/facebookresearch/mae. Needs PyTorch
and timm. Weights and images are those of tests/golden/reference/refweights.py;
the masks are drawn by NumPy, and the decoder's positions are vitjax's, whose
frequencies differ from the published ones.
"""

import argparse
import functools
import json
import pathlib
import runpy
import sys

import numpy as np

SEED, SIDE, PATCH = 7, 32, 8
ENCODER = {"embed_dim": 32, "depth": 2, "num_heads": 2}
DECODER = {
  "decoder_embed_dim": 16,
  "decoder_depth": 1,
  "decoder_num_heads": 2,
}
# Buffers of the published code, and not trained.
FIXED = "decoder_pos_embed"


def positions(side: int, width: int) -> np.ndarray:
  """The fixed position embedding, with a row of zeros for the class token."""
  y, x = np.mgrid[:side, :side].reshape(2, -1, 1)
  omega = 10_000.0 ** -(np.arange(width // 4) / (width // 4 - 1))
  parts = [f(a * omega[None]) for a in (x, y) for f in (np.sin, np.cos)]
  return np.pad(np.concatenate(parts, axis=1), ((1, 0), (0, 0)))[None]


def published(code: pathlib.Path):
  """The module of the published model, with the installed NumPy and timm."""
  np.float = float  # removed from NumPy since
  sys.path.insert(0, str(code))
  import models_mae
  from timm.models.vision_transformer import Block

  def block(*args, qk_scale, **kwargs):
    del qk_scale  # removed from timm since, and None
    return Block(*args, **kwargs)

  models_mae.Block = block
  return models_mae


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--code", type=pathlib.Path, required=True)
  parser.add_argument("out", type=pathlib.Path)
  args = parser.parse_args()
  import torch

  ref = runpy.run_path(str(args.out / "refweights.py"))
  code = published(args.code)
  norm = functools.partial(torch.nn.LayerNorm, eps=1e-6)
  model = code.MaskedAutoencoderViT(
    SIDE, PATCH, 3, **ENCODER, **DECODER, norm_layer=norm
  ).eval()
  shapes = {k: list(v.shape) for k, v in model.state_dict().items()}
  del shapes[FIXED]
  case = {
    "source": "facebookresearch/mae efb2a80, models_mae.py",
    "model": {"patch_size": PATCH, **ENCODER, **DECODER},
    "seed": SEED,
    "image_shape": [2, SIDE, SIDE, 3],
    "shapes": shapes,
  }
  grid = SIDE // PATCH
  flat = ref["weights"](case)
  flat[FIXED] = positions(grid, DECODER["decoder_embed_dim"])
  state = {k: torch.tensor(v, dtype=torch.float32) for k, v in flat.items()}
  model.load_state_dict(state)
  noise = np.random.default_rng(SEED).random((2, grid * grid))
  case["order"] = noise.argsort(axis=1).tolist()
  torch.rand = lambda *_, **__: torch.tensor(noise)
  image = torch.tensor(ref["images"](case)).permute(0, 3, 1, 2)
  outputs = {}
  with torch.no_grad():
    for loss, is_normalised in (
      ("pixel_mse", False),
      ("normalised_pixel_mse", True),
    ):
      model.norm_pix_loss = is_normalised
      value, predictions, mask = model(image, mask_ratio=0.75)
      outputs[loss] = value.item()
  outputs["predictions"] = predictions[:, ::5, ::17].tolist()
  outputs["is_masked"] = mask.bool().tolist()
  case["outputs"] = outputs
  file = args.out / "mini_mae.json"
  file.write_text(json.dumps(case, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
  main()
