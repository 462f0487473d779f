"""Deterministic weights and images for the reference cases in this folder.

A case stores only parameter names, shapes and the outputs that the published
implementation gave. Weights and images are rebuilt from their names, so a
60-million-parameter case is a few kilobytes.

  case = load_case("vt_ViT-Ti_16")         # dict read from <name>.json
  flat = weights(case)                      # {published key: float32 array}
  image = images(case)                      # (b, h, w, 3) float32 in [-1, 1]
  case["outputs"]                           # {"logits": nested lists, ...}
"""

import json
import pathlib
import zlib

import numpy as np

HERE = pathlib.Path(__file__).parent


def load_case(name: str, folder: pathlib.Path = HERE) -> dict:
  """Reads `<name>.json`: source, model, seed, shapes, image_shape, outputs."""
  return json.loads((folder / f"{name}.json").read_text())


def array(key: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
  """The float32 array of one parameter; a function of (key, shape, seed)."""
  rng = np.random.default_rng([zlib.crc32(key.encode()), seed])
  x = np.asarray(rng.standard_normal(shape, dtype=np.float32))
  leaf = key.replace(".", "/").split("/")[-1]
  is_vector = np.prod(shape, initial=1) == max(shape, default=1)
  if leaf in ("scale", "weight", "gain", "gamma") and is_vector:
    return np.asarray(1 + 0.1 * x)  # norm scales, gains, LayerScale
  if is_vector:
    return np.asarray(0.1 * x)  # biases, class tokens, temperatures
  if leaf == "weight":  # torch layout: output first
    fan_in = int(np.prod(shape[1:]))
  else:  # flax layout: output last
    fan_in = int(np.prod(shape[:-1]))
  return x / np.float32(np.sqrt(max(fan_in, 1)))


def weights(case: dict) -> dict[str, np.ndarray]:
  """All parameters of a case, keyed by their published names."""
  return {
    k: array(k, tuple(s), case["seed"]) for k, s in case["shapes"].items()
  }


def images(case: dict) -> np.ndarray:
  """Smooth random images in [-1, 1], shape `case["image_shape"]` (b,h,w,c)."""
  b, h, w, c = case["image_shape"]
  rng = np.random.default_rng([case["seed"], 7])
  low = rng.uniform(-1, 1, (b, 8, 8, c)).astype(np.float32)
  ys = np.linspace(0, 7, h)
  xs = np.linspace(0, 7, w)
  y0 = np.minimum(ys.astype(int), 6)
  x0 = np.minimum(xs.astype(int), 6)
  fy = (ys - y0).astype(np.float32)[None, :, None, None]
  fx = (xs - x0).astype(np.float32)[None, None, :, None]
  rows = low[:, y0] * (1 - fy) + low[:, y0 + 1] * fy
  image = rows[:, :, x0] * (1 - fx) + rows[:, :, x0 + 1] * fx
  noise = rng.standard_normal((b, h, w, c), dtype=np.float32)
  return np.clip(image + 0.1 * noise, -1, 1).astype(np.float32)


def tokens(case: dict) -> np.ndarray:
  """Random token ids (b, length) int32 for cases with a text tower."""
  b, length, vocab = case["token_shape"]
  rng = np.random.default_rng([case["seed"], 11])
  ids = rng.integers(1, vocab, (b, length))
  ids[:, length // 2 :] *= rng.integers(0, 2, (b, 1))  # some rows are padded
  return ids.astype(np.int32)
