"""JPEGs decoded, cropped and augmented with all cores, as for ViT-S/16.

Input keeps up with a device whose train step takes fewer images per second.
"""

import pathlib
import tempfile
import time

import numpy as np

from scripts.accelerator_check import skip

_OPS = "decode_jpeg_and_inception_crop({})|flip_lr|randaug(2, 10)"


def _folder(path: pathlib.Path, count: int) -> None:
  """A class folder with smooth pictures of 500x375 pixels."""
  import PIL.Image

  random = np.random.default_rng(0)
  for i in range(count):
    coarse = random.integers(256, size=(12, 16, 3), dtype="uint8")
    image = PIL.Image.fromarray(coarse).resize((500, 375))
    folder = path / "train" / str(i % 2)
    folder.mkdir(parents=True, exist_ok=True)
    image.save(folder / f"{i}.jpg", quality=90)


def run(case: str, tiny: bool) -> dict:
  del case
  for package in ("tensorflow", "tensorflow_datasets", "array_record"):
    skip.without(package, "the input pipeline")
  from vitjax.data import pipeline, sources
  from vitjax.data.pp import builder

  batch, steps, size = (2, 4, 32) if tiny else (256, 40, 224)
  with tempfile.TemporaryDirectory() as folder:
    _folder(pathlib.Path(folder), 8 if tiny else 512)
    source = sources.open_source(f"folder:{folder}", "train")
    preprocess = builder.build(_OPS.format(size) + "|value_range(-1, 1)")
    batches = iter(
      pipeline.train_batches(
        source,
        preprocess,
        batch_size=batch,
        seed=0,
        start_step=0,
        total_steps=steps + 1,
      )
    )
    next(batches)
    start = time.perf_counter()
    count = sum(1 for _ in batches)
    seconds = time.perf_counter() - start
  return {"host_images_per_second": count * batch / seconds}
