"""Checks that a file is complete, by its format and by recorded checksums.

A record in the cache says when a file was last verified, and its sha256.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import zipfile
import zlib

from vitjax.weights import files, npz

_PICKLE = b"\x80"  # first byte of a pickle, as PyTorch once wrote them


def has_checksums(path: pathlib.Path) -> bool:
  """Whether a file, maybe unfinished, has checksums in it: a zip archive."""
  with open(path, "rb") as f:
    return f.read(2) == b"PK"


def check(path: pathlib.Path, name: str | None = None) -> None:
  """Checks that a file is whole, as far as its format can tell.

  Args:
    path: the file.
    name: the name whose suffix gives the format; None for that of `path`.

  Raises:
    ValueError: if it is not; the message continues a sentence about the file.
  """
  name = name or path.name
  with open(path, "rb") as f:
    start = f.read(512)
  if not start:
    raise ValueError("is empty")
  if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
    raise ValueError("is a web page instead of the file")
  suffix = pathlib.PurePath(name).suffix
  is_archive = suffix in (".npz", *files.TORCH) and start[:1] != _PICKLE
  if is_archive or has_checksums(path):
    try:
      with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, zlib.error) as e:
      raise ValueError(f"is not a complete archive: {e}") from e
    if damaged:
      raise ValueError(f"is damaged in {damaged}")
  elif suffix == ".safetensors":
    _check_safetensors(path)


def _check_safetensors(path: pathlib.Path) -> None:
  """A header of JSON, after its length, says where the arrays end."""
  with open(path, "rb") as f:
    length = int.from_bytes(f.read(8), "little")
    header = f.read(min(length, 100_000_000))
  try:
    entries = {k: v for k, v in json.loads(header).items() if k[:2] != "__"}
    end = max((x["data_offsets"][1] for x in entries.values()), default=0)
  except (ValueError, AttributeError, TypeError, KeyError, IndexError) as e:
    raise ValueError("is not a complete safetensors file") from e
  if path.stat().st_size != 8 + length + end:
    raise ValueError(
      f"has {path.stat().st_size} bytes; its header says {8 + length + end}"
    )


def problem(
  path: pathlib.Path,
  cache: pathlib.Path,
  *,
  size: int | None,
  sha256: str | None,
) -> str | None:
  """The error of the file at `path`; None if it can be used.

  It is read only if its size or time differ from what was recorded when it was
  last verified.

  Args:
    path: the file, in the cache or elsewhere.
    cache: folder of downloads.
    size: published size in bytes, if known.
    sha256: published checksum or its first digits, if known.
  """
  if not path.is_file():
    return "does not exist"
  stat = path.stat()
  if size not in (None, stat.st_size):
    return f"has {stat.st_size} bytes and should have {size}"
  is_download = cache in path.parents
  if not (sha256 or is_download):
    return None
  last = _read_record(path, cache)
  known = last.get("sha256", "") if is_download else ""
  want = (sha256 or known).lower()  # maybe only its first digits
  state = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
  if {**last, **state} == last and last["sha256"].startswith(want):
    return None
  got = digest(path, "sha256")
  if not got.startswith(want):
    return f"has sha256 {got} and should have {want}"
  if not want:  # downloaded by a version without records
    try:
      check(path)
    except ValueError as e:
      return str(e)
  record(path, cache, got)
  return None


def _place(path: pathlib.Path, cache: pathlib.Path) -> pathlib.Path:
  """The JSON file that says when `path` was verified, and its sha256."""
  key = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:32]
  return cache / "verified" / f"{key}.json"


def _read_record(path: pathlib.Path, cache: pathlib.Path) -> dict:
  try:
    found = json.loads(_place(path, cache).read_text())
  except (OSError, ValueError):
    return {}
  is_record = isinstance(found, dict) and isinstance(found.get("sha256"), str)
  return found if is_record else {}


def record(path: pathlib.Path, cache: pathlib.Path, sha256: str) -> None:
  """Notes that `path` was verified, and has this checksum."""
  stat = path.stat()
  content = {
    "file": os.fspath(path),
    "size": stat.st_size,
    "mtime_ns": stat.st_mtime_ns,
    "sha256": sha256,
  }
  with contextlib.suppress(OSError):  # it only saves time
    with npz.atomic(_place(path, cache)) as temporary:
      pathlib.Path(temporary).write_text(json.dumps(content))


def digest(path: pathlib.Path, algorithm: str) -> str:
  """Hexadecimal checksum of a file."""
  with open(path, "rb") as f:
    return hashlib.file_digest(f, algorithm).hexdigest()
