"""Prepares ImageNet-1k for TFDS from its official archives.

TFDS's own builder starts again after each interruption; here finished shards
are kept. The file name alone decides to which shard an example belongs, so the
files are the same after any number of interruptions. Features, formats,
metadata and the conversion of images that are not RGB JPEGs are TFDS's.
"""

import contextlib
import dataclasses
import hashlib
import io
import itertools
import json
import os
import pathlib
import re
import shutil
import tarfile
from collections.abc import Callable, Generator, Iterator

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.datasets.imagenet2012 import (
  imagenet2012_dataset_builder,
  imagenet_common,
)

from vitjax.data.sources import files
from vitjax.data.tf import tf

try:
  import fcntl
except ImportError:  # Windows
  fcntl = None

# File, number of images and MD5 of each split, as published with ILSVRC 2012.
ARCHIVES = {
  "train": (
    "ILSVRC2012_img_train.tar",
    1_281_167,
    "1d675b47d978889d74fa0da5fadfb00e",
  ),
  "validation": (
    "ILSVRC2012_img_val.tar",
    50_000,
    "29b22e2961454d5413ddabcf34fc5622",
  ),
}
NAME = "imagenet2012"
_SHARD_BYTES = 2**27
_CHUNK_BYTES = 2**24
_TRAIN_NAME = re.compile(r"(n\d{8})_\d+\.JPEG")


@dataclasses.dataclass(frozen=True)
class _Image:
  """Place of an image: `size` bytes at `offset` of the archive."""

  file_name: str
  label: str
  offset: int
  size: int


def prepare_imagenet(
  archives: str | os.PathLike,
  data_dir: str | os.PathLike | None = None,
  *,
  file_format: str = "array_record",
  partial: bool = False,
  log: Callable[[str], None] = lambda line: None,
) -> pathlib.Path:
  """Prepares `imagenet2012`, or resumes after an interruption.

  Args:
    archives: folder with ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar.
    data_dir: folder where TFDS keeps its data sets; None for its default.
    file_format: "array_record" or "tfrecord".
    partial: accepts archives other than the official ones, with any number of
      images, and a single split.
    log: called with lines of progress.

  Returns:
    The folder of the data set.

  Raises:
    ValueError: if an archive is missing, damaged or not the official one, or
      the shards there are from other archives; or another process is preparing
      the same data set.
    OSError: if the disk is full.
  """
  folder = pathlib.Path(archives).expanduser()
  builder = tfds.builder(NAME, data_dir=data_dir, file_format=file_format)
  target = pathlib.Path(os.fspath(builder.data_dir))
  if builder.is_prepared():
    log(f"{target} is prepared already.")
    return target
  root = target.parent.parent
  work = root / f".{NAME}-{target.name}.partial"
  root.mkdir(parents=True, exist_ok=True)
  with _locked(root / f".{NAME}-{target.name}.lock"):
    _prepare(builder, folder, work, file_format, partial, log)
    target.parent.mkdir(exist_ok=True)
    os.rename(work, target)
  return target


def _prepare(builder, folder, work, file_format, partial, log) -> None:
  plan = {"format": file_format}
  shards = {}
  for split, (name, count, _) in ARCHIVES.items():
    path = folder / name
    if not path.is_file():
      if partial:
        continue
      raise ValueError(
        f"{path} is missing. Get ILSVRC2012_img_train.tar and "
        "ILSVRC2012_img_val.tar from https://image-net.org/download-images "
        f"and put both into {folder}."
      )
    log(f"Reading the table of contents of {path} ...")
    images = _index(path, split)
    if not partial and len(images) != count:
      raise ValueError(
        f"{path} has {len(images)} images, and the official file {count}. Copy "
        "or download it again. To prepare a part of the data, add --partial."
      )
    images.sort(key=lambda x: hashlib.sha256(x.file_name.encode()).digest())
    total = sum(image.size for image in images)
    number = min(len(images), max(1, round(total / _SHARD_BYTES)))
    bounds = np.linspace(0, len(images), number + 1).round().astype(int)
    shards[split] = [images[a:b] for a, b in itertools.pairwise(bounds)]
    content = hashlib.sha256(repr(images).encode()).hexdigest()
    plan[split] = {"content": content, "shards": number}
  if not shards:
    raise ValueError(f"{folder} has none of the archives.")
  work.mkdir(exist_ok=True)
  _check_plan(work / "plan.json", plan)
  if not partial:
    for split, (name, _, md5) in ARCHIVES.items():
      _check_md5(folder / name, md5, work / f"{split}.md5", log)

  serializer = tfds.core.example_serializer.ExampleSerializer(
    builder.info.features.get_serialized_info()
  )
  infos = []
  for split, parts in shards.items():
    template = tfds.core.ShardedFileTemplate(
      data_dir=work,
      dataset_name=NAME,
      split=split,
      filetype_suffix=file_format,
    )
    for i, images in enumerate(parts):
      path = pathlib.Path(
        os.fspath(
          template.sharded_filepath(shard_index=i, num_shards=len(parts))
        )
      )
      if not path.exists():
        _write(builder, serializer, folder / ARCHIVES[split][0], images, path)
      log(f"{split}: {i + 1} of {len(parts)} shards")
    infos.append(
      tfds.core.SplitInfo(
        name=split,
        shard_lengths=[len(images) for images in parts],
        num_bytes=sum(image.size for images in parts for image in images),
        filename_template=template,
      )
    )
  builder.info.set_splits(tfds.core.splits.SplitDict(infos))
  builder.info.write_to_directory(work)
  for file in (work / "plan.json", *work.glob("*.md5")):
    file.unlink()


def _index(path: pathlib.Path, split: str) -> list[_Image]:
  """Place and label of each image in an archive."""
  try:
    with files.open_file(os.fspath(path)) as file:
      members = _members(files.stream(file))
      if split != "train":
        found = [_Image(m.name, "", m.offset_data, m.size) for m in members]
      else:
        found = []
        for member in members:
          start, label = member.offset_data, member.name.removesuffix(".tar")
          inner = files.stream(file, start, member.size)
          found += [
            _Image(m.name, label, start + m.offset_data, m.size)
            for m in _members(inner)
          ]
  except tarfile.TarError as e:
    raise ValueError(
      f"{path} cannot be read: {e}. Copy or download it again."
    ) from e
  size = path.stat().st_size
  for x in found:
    if x.offset + x.size > size:
      raise ValueError(
        f"{path} ends within {x.file_name}: it was cut off. Copy or download "
        "it again."
      )
    match = _TRAIN_NAME.fullmatch(x.file_name)
    if split == "train" and (match is None or match[1] != x.label):
      raise ValueError(
        f"{path}: {x.file_name} in {x.label}.tar is no image of ImageNet's "
        "training set."
      )
  if split != "train":
    labels = _validation_labels(path)
    found = [dataclasses.replace(x, label=labels[x.file_name]) for x in found]
  if len({x.file_name for x in found}) != len(found) or not found:
    raise ValueError(f"{path} has no images, or one of them twice.")
  return found


def _members(stream) -> Iterator[tarfile.TarInfo]:
  with tarfile.open(fileobj=stream, mode="r:") as tar:
    for member in tar:
      if member.isfile():
        yield member


def _validation_labels(path: pathlib.Path) -> dict[str, str]:
  return imagenet_common.get_validation_labels(os.fspath(path))


def _check_plan(file: pathlib.Path, plan: dict) -> None:
  """Writes the plan; raises ValueError if another one exists."""
  if not file.exists():
    _write_atomically(file, json.dumps(plan))
  elif json.loads(file.read_text()) != plan:
    raise ValueError(
      f"{file.parent} was started from other archives or in another format. "
      "Use those, or delete this folder to start again."
    )


def _check_md5(path, md5: str, done: pathlib.Path, log) -> None:
  """Checks the MD5 of an archive, unless an earlier attempt did."""
  if done.exists():
    return
  log(f"Checking the MD5 of {path} ...")
  digest = hashlib.md5(usedforsecurity=False)
  with open(path, "rb") as file:
    while chunk := file.read(_CHUNK_BYTES):
      digest.update(chunk)
  if digest.hexdigest() != md5:
    raise ValueError(
      f"{path} has the MD5 {digest.hexdigest()}, and the official file {md5}: "
      "it is damaged. Copy or download it again."
    )
  _write_atomically(done, md5)


def _rgb_jpeg(file_name: str, data: bytes) -> bytes:
  """The image as TFDS stores it; the 23 others become RGB JPEGs."""
  official = imagenet2012_dataset_builder
  if file_name in official.CMYK_IMAGES:
    return tfds.core.utils.jpeg_cmyk_to_rgb(data)
  if file_name in official.PNG_IMAGES:
    return tfds.core.utils.png_to_jpeg(data)
  return data


def _write(builder, serializer, archive, images, path: pathlib.Path) -> None:
  """Writes one shard; it appears complete or not at all."""
  size = sum(image.size for image in images)
  free = shutil.disk_usage(path.parent).free
  if size > free:
    raise OSError(
      f"{path.parent} has {free / 1e9:.1f} GB left: the next shard needs "
      f"{size / 1e9:.1f} GB. Make room, then run the same command to resume."
    )

  def records(file):
    for image in images:
      file.seek(image.offset)
      data = _rgb_jpeg(image.file_name, file.read(image.size))
      example = {
        "file_name": image.file_name,
        "image": io.BytesIO(data),
        "label": image.label,
      }
      encoded = builder.info.features.encode_example(example)
      # Protocol buffers serialise features in another order in each process.
      record = tf.train.Example.FromString(
        serializer.serialize_example(encoded)
      )
      yield image.file_name, record.SerializeToString(deterministic=True)

  temporary = path.with_name(f"{path.name}.tmp")
  adapter = tfds.core.file_adapters.ADAPTER_FOR_FORMAT[builder.info.file_format]
  try:
    with open(archive, "rb") as file:
      adapter.write_examples(temporary, records(file))
    with open(temporary, "rb") as file:
      os.fsync(file.fileno())
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


def _write_atomically(file: pathlib.Path, text: str) -> None:
  temporary = file.with_name(f"{file.name}.tmp")
  temporary.write_text(text)
  os.replace(temporary, file)


@contextlib.contextmanager
def _locked(file: pathlib.Path) -> Generator[None]:
  """Raises ValueError if another process holds the lock."""
  with open(file, "w") as f:
    if fcntl is not None:
      try:
        fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError:
        raise ValueError(
          f"another process is preparing {NAME} in {file.parent}. Wait until "
          "it ends, or end it."
        ) from None
    try:
      yield
    finally:
      file.unlink(missing_ok=True)


if __name__ == "__main__":
  raise SystemExit(
    "vitjax.data.prepare is a library. To prepare ImageNet-1k: "
    "python -m vitjax.data prepare imagenet --from=FOLDER"
  )
