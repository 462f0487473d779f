"""Graphs for `vitjax export`: the flags, the file, the measurements."""

import pathlib
from collections.abc import Iterator, Sequence

from vitjax.data.sources import folder
from vitjax.graphs import accuracy as accuracy_lib
from vitjax.graphs import forward, onnx_export, onnx_file, proof, stablehlo


def export(
  trained,
  out: pathlib.Path,
  *,
  input: forward.Input,
  tower: forward.Tower,
  precision: onnx_export.Precision,
  calibrate: str | None,
  images: Sequence[str],
  tolerance: float | None,
  accuracy: str | None,
) -> Iterator[str]:
  """Writes the file; yields lines about what was written and measured.

  See the flags of `vitjax.export` for Args.

  Raises:
    ValueError: if flags exclude each other, the model cannot be converted, or
      the file differs from the model.
  """
  is_onnx = out.suffix == ".onnx"
  if not is_onnx and precision != "float32":
    raise ValueError(
      f"--precision={precision} is for ONNX files; {out.name} is in float32."
    )
  if calibrate and precision != "int8":
    raise ValueError("--calibrate is for --precision=int8.")
  if tower == "txt" and not trained.has_two_towers:
    raise ValueError(
      "--tower=txt: this model reads images only and has no text tower."
    )
  if accuracy:
    accuracy_lib.check(trained, accuracy)
  pictures = list(_files(images))
  if is_onnx:
    found = onnx_export.export(
      trained,
      out,
      input=input,
      tower=tower,
      precision=precision,
      images=pictures,
      calibrate=list(_files([calibrate])) if calibrate else (),
      tolerance=tolerance,
    )
  else:
    found = stablehlo.export(
      trained,
      out,
      input=input,
      tower=tower,
      images=pictures,
      tolerance=tolerance,
    )
  yield f"Wrote {out} ({out.stat().st_size / 1e6:.1f} MB)."
  yield _describe(found, "texts" if tower == "txt" else "images")
  if accuracy:
    run = onnx_file.Session(out) if is_onnx else stablehlo.read(out)
    yield str(accuracy_lib.measure(trained, run, input, accuracy))


def _describe(found: proof.Proof, what: str) -> str:
  line = (
    f"Its outputs differ from the model's by {found.difference:.1e} of the "
    f"largest, on {found.images} {what}."
  )
  if found.rounded is not None:
    line += f" {found.rounded:.3%} of the prepared pixels differ by one level."
  return line


def _files(paths: Sequence[str]) -> Iterator[str]:
  for path in map(pathlib.Path, paths):
    if path.is_dir():
      found, _ = folder.walk(path)
      if not found:
        raise ValueError(f"{path} has no images.")
      yield from map(str, found)
    else:
      yield str(path)
