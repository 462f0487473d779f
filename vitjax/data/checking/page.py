"""A page with pictures about a check; it needs no other file."""

import base64
import dataclasses
import os
import pathlib
from collections.abc import Sequence

import cv2
import numpy as np

from vitjax.config import extras
from vitjax.data import pipeline
from vitjax.data.checking.report import Report, range_of
from vitjax.data.pp import builder

with extras.needed("plots", "pages"):
  import jinja2

_THUMBNAIL = 112  # pixels of the longer side
_MOST = 60  # groups or images of each kind, and classes
_MOST_IN_GROUP = 8


@dataclasses.dataclass(frozen=True)
class Picture:
  """A thumbnail.

  Attributes:
    address: data URI; empty if the file cannot be decoded.
    caption: lines below it.
    link: URI of the file.
  """

  address: str
  caption: str
  link: str


@dataclasses.dataclass(frozen=True)
class Gallery:
  """Rows of pictures below a heading; `more` is the number of absent rows."""

  title: str
  rows: Sequence[Sequence[Picture]]
  more: int


def write(
  report: Report, out: str | os.PathLike, *, pp: str = "decode"
) -> None:
  """Writes the page about a report; it appears complete or not at all.

  Args:
    report: the report.
    out: file of the page.
    pp: op that decodes the images, as for the check.
  """
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader("vitjax.data.checking"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
  )
  thumbnails = _Thumbnails(builder.build(pp))
  names = report.class_names
  counts = {
    name: [split.classes.get(name, 0) for split in report.splits.values()]
    for name in names
  }
  text = environment.get_template("check.html").render(
    report=report,
    range_of=range_of,
    counts=dict(list(counts.items())[:_MOST]),
    more_classes=max(0, len(names) - _MOST),
    largest=max((max(x) for x in counts.values()), default=0),
    examples={
      name: [thumbnails(file) for file in files]
      for name, files in list(report.examples.items())[:_MOST]
    },
    galleries=_galleries(report, thumbnails),
  )
  temporary = f"{os.fspath(out)}.part"
  pathlib.Path(temporary).write_text(text, encoding="utf-8")
  os.replace(temporary, out)


def _galleries(report: Report, thumbnails: "_Thumbnails") -> list[Gallery]:
  galleries = []
  for title, groups in (
    ("Same bytes", report.duplicates),
    ("Alike", report.near_duplicates),
    ("Same name in several splits", report.same_name),
  ):
    # Groups in several splits come first.
    leaked = {*report.leaked, *report.near_leaked}
    groups = sorted(groups, key=lambda group: group not in leaked)
    rows = [
      [thumbnails(file) for file in group[:_MOST_IN_GROUP]]
      for group in groups[:_MOST]
    ]
    galleries.append(Gallery(title, rows, len(groups) - len(rows)))
  shown = report.suspects[:_MOST]
  row = [
    thumbnails(
      x.file,
      f"{x.label} ({x.self_confidence:.0%}), perhaps {x.suggested} "
      f"({x.self_confidence + x.margin:.0%})",
    )
    for x in shown
  ]
  galleries.append(
    Gallery(
      "Labels that may be wrong",
      [row] if row else [],
      len(report.suspects) - len(shown),
    )
  )
  return [x for x in galleries if x.rows]


class _Thumbnails:
  """Makes pictures of files."""

  def __init__(self, decode):
    self._decode = decode

  def __call__(self, file: str, caption: str = "") -> Picture:
    path = pathlib.Path(file)
    try:
      data = path.read_bytes()
      address = _address(pipeline.run_once(self._decode, data)["image"])
    except (OSError, ValueError):
      address = ""
    name = "/".join(path.parts[-3:])
    lines = f"{caption}\n{name}".lstrip()
    return Picture(address, lines, path.absolute().as_uri())


def _address(image: np.ndarray) -> str:
  """A JPEG of the first channels of an image."""
  image = image[..., : 3 if image.shape[2] > 2 else 1]
  scale = _THUMBNAIL / max(image.shape[:2])
  size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
  method = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
  small = cv2.resize(image, size, interpolation=method)
  if small.ndim == 3:
    small = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
  _, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 80])
  return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"
