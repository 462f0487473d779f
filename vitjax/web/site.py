"""Writes the folder of a page: the model in pieces, the page and the runtime.

`page/` has the files that are copied. `site.json` says what the model is and
which pieces it has, and `files.js` has a checksum of each file, by which the
service worker keeps them.
"""

import hashlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

from vitjax.config import extras
from vitjax.data import tokenizers
from vitjax.data.pp import builder
from vitjax.graphs import facts, onnx_file, proof
from vitjax.graphs.onnx_export import Precision
from vitjax.web import graphs, packages

PAGE = pathlib.Path(__file__).parent / "page"
# Small enough for every host, and large enough that there are few.
_PIECE_BYTES = 16 << 20
# Photographs are scaled down to this number of pixels before the model's own
# preprocessing: it takes a second in the browser, and memory.
_MAX_PIXELS = 4_000_000
_TOP = 5
# Nothing about the machine of the training becomes public.
_FACTS = (
  "bias",
  "image_size",
  "model",
  "precision",
  "preprocess",
  "temperature",
  "vitjax",
)
_CAPTIONS = ("a photo of a cat", "a photo of a dog", "a photo of a person")


def write(
  trained,
  out: pathlib.Path,
  *,
  title: str,
  precision: Precision = "float32",
  captions: Sequence[str] = (),
  runtime: str | os.PathLike | None = None,
  tolerance: float | None = None,
) -> Iterator[str]:
  """Writes a page; yields lines about what was written and measured.

  Args:
    trained: from `vitjax.load`.
    out: folder to write; one with an earlier page is replaced.
    title: headline of the page.
    precision: type of the parameters and activations.
    captions: texts at the start, for a model with two towers.
    runtime: folder with the JavaScript packages; see `packages.copy`.
    tolerance: largest difference of outputs, relative to the largest output.

  Raises:
    ValueError: if the model cannot be shown, the folder has other files, or a
      graph differs from the model.
    OSError: if a package cannot be fetched or a file cannot be written.
    ImportError: if the packages of `vitjax[onnx]` are not installed.
  """
  with extras.needed("onnx", "web pages"):
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401
  _check(trained, out, captions)
  out.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(dir=out.parent, prefix=".web_") as temporary:
    folder = pathlib.Path(temporary) / "site"
    shutil.copytree(PAGE, folder)
    packages.copy(
      folder / "runtime", tokenizers=trained.has_two_towers, folder=runtime
    )
    site = _describe(trained, title, precision, captions)
    found = _write_towers(trained, folder, site, precision, tolerance)
    if trained.has_two_towers:
      site["tokenizer"] = _copy_vocab(trained, folder)
    site["sizes"] = {name: x.stat().st_size for name, x in _files(folder)}
    _write_json(folder / "site.json", site)
    write_list(folder)
    if out.exists():
      shutil.rmtree(out)
    os.replace(folder, out)
  yield from _report(out, found)


def _check(trained, out: pathlib.Path, captions: Sequence[str]) -> None:
  if trained.channels not in (1, 3):
    raise ValueError(
      f"the model takes images of {trained.channels} channels, which a browser "
      "cannot show. Use --format=onnx."
    )
  if not (trained.has_two_towers or trained.model.num_classes):
    raise ValueError("the model has no classes to show. Use --format=onnx.")
  if trained.has_two_towers:
    trained.tokenizer  # noqa: B018, raises
  elif captions:
    raise ValueError("--captions: this model does not read texts.")
  if out.exists() and not (out / "site.json").is_file():
    if not out.is_dir() or any(out.iterdir()):
      raise ValueError(
        f"{out} exists and is not a page of this command. Name a new folder, "
        f"such as --out={out.name}_2."
      )


def _describe(
  trained, title: str, precision: Precision, captions: Sequence[str]
) -> dict[str, Any]:
  """What the page needs to know about the model."""
  labels = trained.labels
  loss = trained.metadata["loss"]
  site: dict[str, Any] = {
    "title": title,
    "kind": "classes",
    "sigmoid": loss.startswith(("sigmoid", "siglip")),
    "top": _TOP,
    "maxPixels": _MAX_PIXELS,
    "view": _view(trained),
    "facts": {
      key: x
      for key, x in facts.of(trained, "web", "pixels", "img", precision).items()
      if key in _FACTS
    },
  }
  if trained.has_two_towers:
    site["kind"] = "texts"
    site["captions"] = list(captions or _default_captions(labels))
  else:
    count = trained.model.num_classes
    site["labels"] = list(labels or map(str, range(count)))
    if trained.is_regression:
      site["kind"] = "numbers"
  return site


def _default_captions(labels: Sequence[str] | None) -> list[str]:
  if not labels:
    return list(_CAPTIONS)
  return [f"a photo of a {name}." for name in labels[:_TOP]]


def _view(trained) -> list[list[Any]]:
  """The ops that choose the part of an image, for the overlay."""
  preprocess = trained.preprocess
  if "resize" not in preprocess:
    return []
  names = {"resize": "size", "resize_small": "smaller_size"}
  names["central_crop"] = "size"
  return [
    [name, options[names[name]]]
    for name, options in builder.calls(builder.for_images(preprocess))
    if name in names
  ]


def _write_towers(
  trained, folder: pathlib.Path, site: dict, precision, tolerance
) -> dict[str, proof.Proof]:
  """Adds the towers in pieces; returns how they compare with the model."""
  options = {"precision": precision, "tolerance": tolerance}
  file = folder / "image.onnx"
  found = {"images": graphs.write_image_tower(trained, file, **options)}
  sample = graphs.sample(trained.image_size)[None]
  expected = onnx_file.Session(file)(sample)[0]
  pieces = _split(file, folder / "model")
  site["image"] = {"pieces": pieces, "expected": expected.tolist()}
  if trained.has_two_towers:
    file = folder / "text.onnx"
    found["texts"] = graphs.write_text_tower(trained, file, **options)
    site["text"] = {"pieces": _split(file, folder / "model")}
  return found


def _split(file: pathlib.Path, folder: pathlib.Path) -> list[list[Any]]:
  """Replaces a file by pieces; returns the path and size of each."""
  folder.mkdir(exist_ok=True)
  content = file.read_bytes()
  file.unlink()
  pieces = []
  for i, start in enumerate(range(0, len(content), _PIECE_BYTES)):
    piece = content[start : start + _PIECE_BYTES]
    name = f"{file.stem}-{_digest(piece)}-{i}.bin"
    (folder / name).write_bytes(piece)
    pieces.append([f"{folder.name}/{name}", len(piece)])
  return pieces


def _copy_vocab(trained, folder: pathlib.Path) -> dict[str, Any]:
  source = trained.metadata["tokenizer"]
  return tokenizers.copy_vocab(source, folder / "vocabulary")


def write_list(folder: pathlib.Path) -> None:
  """Lists all other files with their sizes and checksums."""
  files = {
    name: [path.stat().st_size, _digest(path.read_bytes())]
    for name, path in _files(folder)
  }
  text = f"self.FILES = {json.dumps(files, indent=1)};\n"
  (folder / "files.js").write_text(text, encoding="utf-8")


def _files(folder: pathlib.Path) -> list[tuple[str, pathlib.Path]]:
  """The files of a folder, with their paths within it."""
  paths = sorted(x for x in folder.rglob("*") if x.is_file())
  return [(path.relative_to(folder).as_posix(), path) for path in paths]


def _write_json(path: pathlib.Path, content) -> None:
  text = json.dumps(content, ensure_ascii=False, indent=1)
  path.write_text(text + "\n", encoding="utf-8")


def _digest(content: bytes) -> str:
  return hashlib.sha256(content).hexdigest()[:16]


def _report(out: pathlib.Path, found: dict[str, proof.Proof]) -> Iterator[str]:
  sizes = {name: path.stat().st_size / 1e6 for name, path in _files(out)}
  yield f"Wrote {out}: {len(sizes)} files, {sum(sizes.values()):.1f} MB."
  for name, size in sizes.items():
    yield f"  {name}  {size:.2f} MB"
  for what, x in found.items():
    yield (
      f"The graph for {what} differs from the model by {x.difference:.1e} of "
      f"the largest output, on {x.images} {what}."
    )
  yield f"Look at it: vitjax demo --static={out}"
