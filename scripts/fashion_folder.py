r"""Writes some classes of Fashion-MNIST as a folder of PNG files.

  python -m scripts.fashion_folder few --classes 1 3 5 --train 50 --val 50

makes few/train/Trouser/00012.png and so on: a data set for `folder:few`. The
images of train and val are drawn from the training set, without overlap, by
--seed; the same seed with a larger --train adds images. test has all test
images of these classes.
"""

import argparse
import pathlib
from collections.abc import Sequence

import cv2
import numpy as np


def write(
  out: pathlib.Path,
  classes: Sequence[int],
  *,
  train: int | None,
  val: int,
  seed: int = 0,
) -> dict[str, int]:
  """Writes the folder.

  Args:
    out: is made; existing files of the same name are replaced.
    classes: 0..9, see https://arxiv.org/abs/1708.07747, table 2.
    train: training images per class; None for all that val leaves.
    val: validation images per class.
    seed: of which images these are.

  Returns:
    Number of images in each split.
  """
  from vitjax.data import sources

  count = dict.fromkeys(("train", "val", "test"), 0)
  for split in ("train", "test"):
    source = sources.open_source("fashion_mnist", split)
    features = source.fetch(np.arange(source.num_examples))
    images, labels = features["image"].numpy(), features["label"].numpy()
    for label in classes:
      rows = np.flatnonzero(labels == label)
      chosen = {"test": rows}
      if split == "train":
        rows = np.random.default_rng((seed, label)).permutation(rows)
        stop = None if train is None else val + train
        chosen = {"val": rows[:val], "train": rows[val:stop]}
      class_name = source.class_names[label].replace("/", " or ")
      for name, indices in chosen.items():
        folder = out / name / class_name
        if len(indices):
          folder.mkdir(parents=True, exist_ok=True)
        for i in indices:
          _, data = cv2.imencode(".png", images[i])
          (folder / f"{i:05d}.png").write_bytes(data.tobytes())
        count[name] += len(indices)
  return count


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("out", type=pathlib.Path)
  parser.add_argument("--classes", type=int, nargs="+", required=True)
  parser.add_argument("--train", type=int, help="per class; default: all")
  parser.add_argument("--val", type=int, default=0, help="per class")
  parser.add_argument("--seed", type=int, default=0)
  args = parser.parse_args()
  count = write(
    args.out, args.classes, train=args.train, val=args.val, seed=args.seed
  )
  for name, number in count.items():
    print(f"{name}: {number:,} images")


if __name__ == "__main__":
  main()
