"""Writes images as tar shards and as Parquet files."""

import io
import json
import pathlib
import tarfile
from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def picture(number: int, kind: str = "JPEG") -> bytes:
  """The file of a small image of noise."""
  random = np.random.default_rng(number)
  size = (*random.integers(20, 40, size=2), 3)
  buffer = io.BytesIO()
  pixels = random.integers(0, 256, size).astype(np.uint8)
  Image.fromarray(pixels).save(buffer, kind)
  return buffer.getvalue()


def tar_of(members: Iterable[tuple[str, bytes]]) -> bytes:
  """A tar file with members in their order; a name may occur twice."""
  buffer = io.BytesIO()
  with tarfile.open(fileobj=buffer, mode="w") as tar:
    for name, content in members:
      info = tarfile.TarInfo(name)
      info.size = len(content)
      tar.addfile(info, io.BytesIO(content))
  return buffer.getvalue()


def write_tar(path: pathlib.Path, members: Iterable[tuple[str, bytes]]) -> None:
  """Writes a tar file, see `tar_of`."""
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(tar_of(members))


def write_parquet(
  path: pathlib.Path,
  columns: Mapping[str, list],
  class_names: list[str] | None = None,
  **options,
) -> None:
  """Writes columns, as Hugging Face does if there are names of classes."""
  path.parent.mkdir(parents=True, exist_ok=True)
  table = pa.table({name: pa.array(x) for name, x in columns.items()})
  if class_names is not None:
    label = {"_type": "ClassLabel", "names": class_names}
    features = {"image": {"_type": "Image"}, "label": label}
    facts = json.dumps({"info": {"features": features}})
    table = table.replace_schema_metadata({"huggingface": facts})
  pq.write_table(table, path, **options)


def pack(
  folder: pathlib.Path, tars: pathlib.Path, parquets: pathlib.Path
) -> None:
  """Writes a folder with splits as two shards of each split, of either kind."""
  for split in sorted(folder.iterdir()):
    classes = sorted(x.name for x in split.iterdir())
    files = sorted(split.glob("*/*"))
    for shard in range(2):
      own = files[shard::2]
      content = [(x.read_bytes(), x.parent.name) for x in own]
      members = []
      for number, (path, (image, name)) in enumerate(zip(own, content)):
        members.append((f"{number:04}{path.suffix}", image))
        members.append((f"{number:04}.cls", name.encode()))
      write_tar(tars / f"{split.name}-{shard:03}.tar", members)
      write_parquet(
        parquets / "data" / f"{split.name}-{shard:05}-of-00002.parquet",
        {
          "image": [
            {"bytes": image, "path": path.name}
            for path, (image, _) in zip(own, content)
          ],
          "label": [classes.index(name) for _, name in content],
        },
        classes,
        compression="none",
      )
