"""The page of a report, and its pictures as PNG files.

The page needs no other file. What cannot be shown becomes a line that says
why.
"""

import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import vitjax
from vitjax.config import extras
from vitjax.report import model, runs
from vitjax.run_folder.history import Record
from vitjax.weights import npz

with extras.needed("plots", "reports"):
  import jinja2


def write(
  records: Sequence[Record],
  out: str | os.PathLike,
  png: str | os.PathLike | None,
  *,
  log: Callable[[str], None] = lambda line: None,
  with_models: bool = True,
  **options: Any,
) -> list[pathlib.Path]:
  """Writes the page and the PNGs; each file appears complete or not at all.

  Args:
    records: what the runs recorded.
    out: file of the page.
    png: folder of the PNGs, or None for none.
    log: called with a line before anything that takes long.
    with_models: whether to load and evaluate the models.
    **options: see `model.model_section`.

  Returns:
    The files, the page first.
  """
  sections = [
    runs.values_section(records),
    runs.curves_section(records),
    runs.config_section(records),
    runs.speed_section(records),
  ]
  for record in records if with_models else ():
    log(f"Evaluating the model of {record.name}")
    sections.append(model.model_section(record, **options))
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader("vitjax.report"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
  )
  page = environment.get_template("report.html").render(
    title=", ".join(record.name for record in records),
    records=records,
    sections=sections,
    version=vitjax.__version__,
  )
  written = [pathlib.Path(out)]
  with npz.atomic(out) as temporary:
    pathlib.Path(temporary).write_text(page, encoding="utf-8")
  if png is None:
    return written
  for section in sections:
    for picture in (*section.pictures, *section.more):
      name = "".join(
        c if c.isalnum() or c in "-._" else "_" for c in picture.key
      )
      file = pathlib.Path(png) / f"{name}.png"
      with npz.atomic(file) as temporary:
        pathlib.Path(temporary).write_bytes(picture.figure.png())
      written.append(file)
  return written
