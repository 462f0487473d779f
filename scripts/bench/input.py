"""Images per second of the input pipeline, JPEGs of 500x375 as in ImageNet.

  pillow       open, random crop box, bilinear resize to 224, flip, to array
  timm         timm's training transform with RandAugment, where it is
               installed: what a PyTorch loader does for each image
  decode_crop  `decode_jpeg_and_inception_crop(224)`: the decode limit
  crop_flip    the same and `flip_lr`
  recipe       the ops of configs/vit_s16_i1k.py, with randaug(2, 10)
  wds, ...     `decode_crop` on the same images in a tar or a Parquet file, the
               latter as they are and compressed, and a mixture of both
  bicubic, ... further crops and augmentations, see `SPECS`
  ready, ...   the ops alone, on images of 224x224 that are in memory

The first two run in a pool with one thread per core. On a shared machine look
at images per second of processor time, which other programs do not change.
"""

import importlib.util
import io
import itertools
import os
import pathlib
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent import futures

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from sklearn import datasets

from configs import vit_s16_i1k
from scripts.bench import turns
from vitjax.config import common
from vitjax.data import pipeline, sources
from vitjax.data.pp import builder

_SIZE = 224
_CROP = f"decode_jpeg_and_inception_crop({_SIZE})"
SPECS = {
  "decode_crop": _CROP,
  "crop_flip": f"{_CROP}|flip_lr",
  "recipe": vit_s16_i1k.get_config().input.pp,
  "bicubic": common.bicubic_crop(_SIZE),
  "timm_rand": f"{_CROP}|flip_lr|{common.TIMM_RANDAUG}",
  "3augment": f"{_CROP}|flip_lr|three_augment",
}
ALONE = {
  "ready": "decode",
  "ready_flip": "flip_lr",
  "ready_rand": "randaug(2, 10)",
  "ready_timm": common.TIMM_RANDAUG,
  "ready_3aug": "three_augment",
}
IMAGES, BATCH, WARMUP, BATCHES = 300, 64, 4, 12


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


def write_shards(folder: pathlib.Path, target: pathlib.Path) -> dict[str, str]:
  """Packs the images of class folders; returns data by contestant."""
  paths = sorted(folder.glob("*/*.jpg"))
  target.mkdir()
  tar_file = target / "train.tar"
  with tarfile.open(tar_file, "w") as tar:
    for path in paths:
      label = path.parent.name.encode()
      info = tarfile.TarInfo(f"{path.stem}.cls")
      info.size = len(label)
      tar.add(path, path.name)
      tar.addfile(info, io.BytesIO(label))
  rows = [{"bytes": x.read_bytes(), "path": x.name} for x in paths]
  labels = [path.parent.name for path in paths]
  table = pa.table({"image": rows, "label": labels})
  data = {"wds": f"wds:{tar_file}"}
  for name, compression in (("parquet", "none"), ("parquet_snappy", "snappy")):
    file = target / name / "train.parquet"
    file.parent.mkdir()
    pq.write_table(table, file, compression=compression, row_group_size=100)
    data[name] = f"parquet:{file}"
  mixture = f"mixture:0.5*{data['wds']}+0.5*{data['parquet']}"
  return {**data, "mixture": mixture}


def load_with_pillow(path: pathlib.Path, numbers: np.ndarray) -> np.ndarray:
  """The baseline: what a loader with Pillow does for each image."""
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


def _in_threads(load: Callable, paths: list[pathlib.Path]) -> Iterator:
  random = np.random.default_rng(0)
  with futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
    while True:
      chosen = [paths[i] for i in random.integers(len(paths), size=BATCH)]
      yield np.stack(list(pool.map(load, chosen, random.random((BATCH, 5)))))


def _timm_transform() -> Callable:
  import torch
  from timm import data

  torch.set_num_threads(1)
  transform = data.create_transform(
    _SIZE,
    is_training=True,
    scale=(0.05, 1.0),
    auto_augment="rand-m10-n2",
    interpolation="bilinear",
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
  )
  return lambda path, _: transform(Image.open(path).convert("RGB")).numpy()


def _ours(source, spec: str) -> Iterator:
  return pipeline.train_batches(
    source,
    builder.build(spec),
    batch_size=BATCH,
    seed=0,
    start_step=0,
    total_steps=10**6,
  )


def _rates(batches: Iterator) -> tuple[float, float]:
  """Images per second of the clock, and per second of one core's work."""
  for batch in itertools.islice(batches, WARMUP):
    del batch
  clock, work = time.perf_counter(), time.process_time()
  for batch in itertools.islice(batches, BATCHES):
    del batch
  images = BATCHES * BATCH
  clock, work = time.perf_counter() - clock, time.process_time() - work
  batches.close()
  return images / clock, images / work


def measure(repetitions: int) -> list[dict]:
  """Rows: images per second and per core second, and ratios of the latter."""
  with (
    tempfile.TemporaryDirectory() as folder,
    tempfile.TemporaryDirectory() as other,
  ):
    write_photographs(pathlib.Path(folder), IMAGES)
    paths = sorted(pathlib.Path(folder).glob("*/*.jpg"))
    source = sources.open_source(f"folder:{folder}", "train+val")
    packed = write_shards(pathlib.Path(folder), pathlib.Path(other, "packed"))
    makers = {"pillow": lambda: _in_threads(load_with_pillow, paths)}
    if importlib.util.find_spec("timm"):
      transform = _timm_transform()
      makers["timm"] = lambda: _in_threads(transform, paths)
    for name, spec in SPECS.items():
      makers[name] = lambda spec=spec: _ours(source, spec)
    for name, data in packed.items():
      opened = sources.open_source(data, "train")
      makers[name] = lambda opened=opened: _ours(opened, SPECS["decode_crop"])
    ready = sources.open_source(f"fake:1000,{_SIZE}x{_SIZE}x3,10", "train")
    for name, spec in ALONE.items():
      makers[name] = lambda spec=spec: _ours(ready, spec)
    found = {name: [] for name in makers}
    for _ in range(repetitions):
      # Made again each time, so that none works ahead during other turns.
      for name, make in makers.items():
        found[name].append(_rates(make()))
  clock = {name: [x for x, _ in rates] for name, rates in found.items()}
  work = {name: [x for _, x in rates] for name, rates in found.items()}
  return [
    {
      "benchmark": "input",
      "contestant": name,
      "pp": (SPECS | ALONE).get(name),
      "images_per_second": turns.summary(clock[name]),
      "images_per_core_second": turns.summary(work[name]),
      **{
        f"times_{other}": turns.summary(np.divide(work[name], work[other]))
        for other in ("pillow", "timm", "decode_crop")
        if other in work
      },
    }
    for name in found
  ]
