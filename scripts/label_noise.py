r"""Plants wrong labels in Fashion-MNIST, and counts how many a check finds.

  python -m scripts.label_noise write fashion
  ... train folds, evaluate them, see docs/data.md ...
  python -m scripts.label_noise score fashion fold_1.jsonl fold_2.jsonl ...

`write` makes a folder of the first 6,000 training images of the Debian package
dataset-fashion-mnist, 2 % of them with another label, and fashion.json, which
names these. `score` prints how many of
the first images that `data check --predictions` lists have a planted label.
"""

import argparse
import gzip
import json
import pathlib
from collections.abc import Sequence

import cv2
import numpy as np

DATA = pathlib.Path("/usr/share/datasets/fashion-mnist")
NAMES = (
  *("tshirt", "trouser", "pullover", "dress", "coat"),
  *("sandal", "shirt", "sneaker", "bag", "boot"),
)


def write(out: pathlib.Path, images: int = 6000, percent: float = 2) -> None:
  """Writes `out`/CLASS/NUMBER.png and the planted ones to `out`.json."""
  pixels = _read("train-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)[:images]
  labels = _read("train-labels-idx1-ubyte.gz", 8)[:images]
  rng = np.random.default_rng(0)
  count = int(images * percent / 100)
  wrong = rng.choice(images, count, replace=False)
  given = labels.astype(int)
  given[wrong] = (given[wrong] + rng.integers(1, 10, count)) % 10
  files = [f"{NAMES[label]}/{i}.png" for i, label in enumerate(given)]
  for file, image in zip(files, pixels):
    (out / file).parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(out / file), image)
  planted = json.dumps([files[i] for i in wrong])
  out.with_suffix(".json").write_text(planted)


def _read(name: str, header: int) -> np.ndarray:
  return np.frombuffer(
    gzip.decompress((DATA / name).read_bytes())[header:], "u1"
  )


def score(out: pathlib.Path, predictions: Sequence[str]) -> list[str]:
  """Rows of a table: images looked at, precision, recall."""
  from vitjax.data.checking import suspects

  planted = {*json.loads(out.with_suffix(".json").read_text())}
  found = suspects.find(suspects.read(predictions))
  hits = ["/".join(x.file.split("/")[-2:]) in planted for x in found]
  rows = ["| first | precision | recall |", "|---|---|---|"]
  for n in (50, 100, len(planted), 200, 300, len(found)):
    right = sum(hits[:n])
    rows.append(f"| {n} | {right / n:.0%} | {right / len(planted):.0%} |")
  return rows


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument("command", choices=("write", "score"))
  parser.add_argument("out", type=pathlib.Path)
  parser.add_argument("predictions", nargs="*")
  args = parser.parse_args()
  if args.command == "write":
    write(args.out)
  else:
    print("\n".join(score(args.out, args.predictions)))


if __name__ == "__main__":
  main()
