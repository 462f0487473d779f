"""Measures the input pipeline against Pillow in a pool of threads.

  python scripts/bench/input.py --out bench_input.jsonl

Makes photographic JPEGs of 500x375, the usual size of ImageNet's, and reports
images per second of

  pillow    open, random crop box, bilinear resize to 224, flip, to array; as
            many threads as cores,
  crop_flip `decode_jpeg_and_inception_crop(224)|flip_lr` of the pipeline,
  randaug   the same and `randaug(2,10)`.

The three take turns on the same cores, because machines change their speed
during a measurement; ratios are taken within a turn. On a machine that is
shared, look at images per second of processor time: others do not count there.
"""

import argparse
import io
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent import futures

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import cv2
import numpy as np
import PIL
import tensorflow as tf
from PIL import Image
from sklearn import datasets

from vitjax.data import pipeline, sources
from vitjax.data.pp import builder

_SIZE = 224
_SPECS = {
  "crop_flip": f"decode_jpeg_and_inception_crop({_SIZE})|flip_lr",
  "randaug": f"decode_jpeg_and_inception_crop({_SIZE})|flip_lr|randaug(2,10)",
}


def write_photographs(folder: pathlib.Path, count: int) -> None:
  """Writes crops of scikit-learn's two photographs into 2 class folders."""
  random = np.random.default_rng(0)
  photographs = datasets.load_sample_images().images
  for number in range(count):
    label = number % len(photographs)
    image = Image.fromarray(photographs[label])
    width = int(random.integers(400, 561))
    height = width * 3 // 4
    x = int(random.integers(image.width - width + 1))
    y = int(random.integers(image.height - height + 1))
    image = image.resize(
      (500, 375), Image.Resampling.BICUBIC, (x, y, x + width, y + height)
    )
    path = folder / f"class_{label}" / f"{number}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=90)


def pillow_batches(
  paths: list[pathlib.Path], batch_size: int
) -> Iterator[np.ndarray]:
  """The baseline: what a loader with Pillow does for each image."""
  random = np.random.default_rng(0)

  def load(path: pathlib.Path, numbers: np.ndarray) -> np.ndarray:
    image = Image.open(path)
    area = (0.05 + 0.95 * numbers[0]) * image.width * image.height
    ratio = np.exp(np.log(3 / 4) + numbers[1] * np.log(16 / 9))
    width = min(image.width, round(np.sqrt(area * ratio)))
    height = min(image.height, round(np.sqrt(area / ratio)))
    x = int(numbers[2] * (image.width - width + 1))
    y = int(numbers[3] * (image.height - height + 1))
    image = image.convert("RGB").resize(
      (_SIZE, _SIZE),
      Image.Resampling.BILINEAR,
      box=(x, y, x + width, y + height),
    )
    if numbers[4] < 0.5:
      image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(image)

  with futures.ThreadPoolExecutor(_cores()) as pool:
    while True:
      chosen = [paths[i] for i in random.integers(len(paths), size=batch_size)]
      numbers = random.random((batch_size, 5))
      yield np.stack(list(pool.map(load, chosen, numbers)))


def images_per_second(
  batches: Iterator, batch_size: int, count: int
) -> tuple[float, float]:
  """Per second of the clock, and per second of one core's work."""
  clock, work = time.perf_counter(), time.process_time()
  for _ in range(count):
    next(batches)
  images = count * batch_size
  return (
    images / (time.perf_counter() - clock),
    images / (time.process_time() - work),
  )


def measure(args: argparse.Namespace, folder: pathlib.Path) -> list[dict]:
  paths = sorted(folder.glob("*/*.jpg"))
  source = sources.open_source(f"folder:{folder}", "train+val")

  def pillow() -> Iterator:
    return pillow_batches(paths, args.batch_size)

  def ours(spec: str) -> Callable[[], Iterator]:
    return lambda: pipeline.train_batches(
      source,
      builder.build(spec),
      batch_size=args.batch_size,
      seed=0,
      start_step=0,
      total_steps=10**6,
    )

  makers = {"pillow": pillow}
  makers |= {name: ours(spec) for name, spec in _SPECS.items()}
  rates = {name: [] for name in makers}
  for _ in range(args.repetitions):
    for name, make in makers.items():
      # Made anew each time, lest one works ahead during the others' turns.
      batches = make()
      images_per_second(batches, args.batch_size, args.warmup)
      rates[name].append(
        images_per_second(batches, args.batch_size, args.batches)
      )
      batches.close()
  return [
    {
      "benchmark": "input",
      "pipeline": name,
      "spec": _SPECS.get(name),
      "images_per_second": _summary(rates[name], rates["pillow"], 0),
      "images_per_core_second": _summary(rates[name], rates["pillow"], 1),
    }
    for name in rates
  ]


def _summary(rates: list, baseline: list, column: int) -> dict:
  rates = np.array(rates)[:, column]
  ratios = rates / np.array(baseline)[:, column]
  return {
    "median": round(float(np.median(rates)), 1),
    "all": rates.round(1).tolist(),
    "ratio_to_pillow": round(float(np.median(ratios)), 3),
    "ratio_to_pillow_all": ratios.round(3).tolist(),
  }


def environment() -> dict:
  revision = subprocess.run(
    ["git", "rev-parse", "HEAD"],
    capture_output=True,
    text=True,
    cwd=pathlib.Path(__file__).parent,
    check=False,
  ).stdout.strip()
  return {
    "revision": revision,
    "cores": _cores(),
    "load_average": os.getloadavg()[0],
    "versions": {
      "tensorflow": tf.__version__,
      "opencv": cv2.__version__,
      "pillow": PIL.__version__,
      "numpy": np.__version__,
    },
  }


def _cores() -> int:
  return len(os.sched_getaffinity(0))


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--out", help="file to which JSON lines are added")
  parser.add_argument("--images", type=int, default=300)
  parser.add_argument("--batch_size", type=int, default=64)
  parser.add_argument("--warmup", type=int, default=4, help="batches")
  parser.add_argument("--batches", type=int, default=12)
  parser.add_argument("--repetitions", type=int, default=7)
  args = parser.parse_args()

  with tempfile.TemporaryDirectory() as folder:
    write_photographs(pathlib.Path(folder), args.images)
    rows = [environment() | row for row in measure(args, pathlib.Path(folder))]

  out = io.StringIO()
  for row in rows:
    out.write(json.dumps(row) + "\n")
  if args.out:
    with open(args.out, "a") as file:
      file.write(out.getvalue())
  print(f"{'':10} {'per':12} {'images':>7} {'x pillow':>9}  spread")
  for row in rows:
    for key, unit in (
      ("images_per_second", "second"),
      ("images_per_core_second", "core second"),
    ):
      ratios = row[key]["ratio_to_pillow_all"]
      print(
        f"{row['pipeline']:10} {unit:12} {row[key]['median']:7.0f} "
        f"{row[key]['ratio_to_pillow']:9.2f}  "
        f"{min(ratios):.2f} .. {max(ratios):.2f}"
      )
  print(out.getvalue(), end="")


if __name__ == "__main__":
  main()
