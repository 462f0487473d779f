"""What a check found, as plain data and as text."""

import dataclasses
from collections.abc import Mapping, Sequence

from vitjax.data.checking.suspects import Suspect


@dataclasses.dataclass(frozen=True)
class Split:
  """One split.

  Attributes:
    examples: number of images.
    classes: number of images of each class, in the order of the labels; {} for
      captions and numbers.
    height, width: (least, median, greatest) pixels of the decoded images.
    shorter_side: number of images by the pixels of their shorter side, such as
      "64 .. 127".
    colours: images by mode, such as "rgb" or "grey, 16 bit".
    rotated: number of images that are rotated by their EXIF orientation.
    mean, std: of the values of each channel in 0..1; () if channels differ.
    targets: (least, median, greatest) of each target of a regression.
  """

  examples: int
  classes: dict[str, int]
  height: tuple[int, float, int] | None
  width: tuple[int, float, int] | None
  shorter_side: dict[str, int]
  colours: dict[str, int]
  rotated: int
  mean: tuple[float, ...]
  std: tuple[float, ...]
  targets: dict[str, tuple[float, float, float]]

  @property
  def normalize(self) -> str:
    """The op that normalises such images; empty if there is none."""
    mean, std = (
      ", ".join(f"{x:.4f}" for x in values) + ("," if len(values) == 1 else "")
      for values in (self.mean, self.std)
    )
    return f"normalize(({mean}), ({std}))" if self.mean else ""


@dataclasses.dataclass(frozen=True)
class Report:
  """What was found; `str` gives a table.

  Attributes:
    data: data set, as in `config.input.data`.
    splits: splits by name.
    problems: sentences about faults that stop a run.
    warnings: sentences about faults that may spoil its result.
    notes: sentences about what is done to images.
    examples: some files of each class, spread over its images.
    unreadable: file -> why.
    duplicates: groups of files with the same bytes.
    leaked: those groups that are in more than one split.
    near_duplicates: groups of other files that look alike.
    near_leaked: those groups that are in more than one split.
    same_name: groups of files with the same name in more than one split.
    suspects: images whose label may be wrong, the most suspicious first.
  """

  data: str
  splits: Mapping[str, Split]
  problems: tuple[str, ...]
  warnings: tuple[str, ...]
  notes: tuple[str, ...]
  examples: Mapping[str, tuple[str, ...]]
  unreadable: Mapping[str, str]
  duplicates: tuple[tuple[str, ...], ...]
  leaked: tuple[tuple[str, ...], ...]
  near_duplicates: tuple[tuple[str, ...], ...] = ()
  near_leaked: tuple[tuple[str, ...], ...] = ()
  same_name: tuple[tuple[str, ...], ...] = ()
  suspects: tuple[Suspect, ...] = ()

  def __str__(self) -> str:
    lines = [self.data, ""]
    rows: list[tuple[str, ...]] = [
      ("split", "images", "height", "width", "colours")
    ]
    for name, split in self.splits.items():
      colours = "; ".join(f"{n} {k}" for k, n in split.colours.items())
      sizes = map(range_of, (split.height, split.width))
      rows.append((name, str(split.examples), *sizes, colours))
    lines += _table(rows)
    train = self.splits.get("train") or next(iter(self.splits.values()), None)
    if train and train.normalize:
      lines += ["", f"Mean and deviation of its pixels: {train.normalize}"]
    if any(split.classes for split in self.splits.values()):
      lines += ["", *_table(self._class_rows())]
    if any(split.targets for split in self.splits.values()):
      lines += ["", *_table(self._target_rows())]
    for title, texts in (
      ("Errors, which stop a run:", self.problems),
      ("Warnings:", self.warnings),
      ("Notes:", self.notes),
    ):
      if texts:
        lines += ["", title, *(f"  {text}" for text in texts)]
    if not (self.problems or self.warnings):
      lines += ["", "Nothing is wrong."]
    return "\n".join(lines)

  def _target_rows(self) -> list[tuple[str, ...]]:
    """Least, median and greatest value of each target."""
    names = dict.fromkeys(x for s in self.splits.values() for x in s.targets)
    rows = [
      (name, *(range_of(s.targets.get(name)) for s in self.splits.values()))
      for name in names
    ]
    return [("target", *self.splits), *rows]

  def _class_rows(self, most: int = 30) -> list[tuple[str, ...]]:
    """Images of each class, or of the smallest ones if there are many."""
    names = self.class_names

    def counts(name):
      return [split.classes.get(name, 0) for split in self.splits.values()]

    title = "class"
    if len(names) > most:
      title = f"smallest of {len(names)} classes"
      names = sorted(names, key=counts)[:most]
    rows = [(name, *map(str, counts(name))) for name in names]
    return [(title, *self.splits), *rows]

  @property
  def class_names(self) -> list[str]:
    """All classes, those of the first split first."""
    return list(
      dict.fromkeys(c for split in self.splits.values() for c in split.classes)
    )


def range_of(values: tuple[float, float, float] | None) -> str:
  """ "20 .. 30 .. 40" for the least, the median and the greatest."""
  if values is None:
    return ""
  return " .. ".join(f"{x:g}" for x in values)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
  widths = [max(map(len, column)) for column in zip(*rows)]
  return [
    "  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip()
    for row in rows
  ]
