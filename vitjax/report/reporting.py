"""What a report shows of runs: gathered from their folders, laid on one page.

The page holds everything that it shows. What cannot be shown becomes a line
that says why.
"""

import contextlib
import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

import vitjax
from vitjax.config import extras, schema
from vitjax.plots import attention_maps, figures
from vitjax.report import mistakes
from vitjax.run_folder.history import Record, differences, thin
from vitjax.run_folder.reader import TIMING_FILE
from vitjax.trained import Trained
from vitjax.weights import npz

with extras.needed("plots", "reports"):
  import jinja2
  import markupsafe

MOST_CLASSES = 20  # of a confusion matrix with more than twice as many
MOST_POSITIONS = 8  # of each side of a grid of grids
_FIRST = ("train/loss", "train/learning_rate", "train/grad_norm")
_EXPECTED = (ValueError, OSError, RuntimeError, ImportError)


@dataclasses.dataclass
class Picture:
  """A figure of a page: either drawn, or an image with a caption."""

  key: str  # its file among the PNGs
  figure: figures.Figure
  hint: str = ""
  images: Sequence[tuple[str, str]] = ()  # data URI and caption

  @functools.cached_property
  def svg(self) -> markupsafe.Markup:
    return markupsafe.Markup(self.figure.svg())


@dataclasses.dataclass
class Section:
  """A heading and what is below it.

  `tables` are (column names, rows of cells); `notes` are sentences.
  """

  title: str
  pictures: list[Picture] = dataclasses.field(default_factory=list)
  more: list[Picture] = dataclasses.field(default_factory=list)
  tables: list[tuple[Sequence[str], list[Sequence[str]]]] = dataclasses.field(
    default_factory=list
  )
  notes: list[str] = dataclasses.field(default_factory=list)

  @contextlib.contextmanager
  def attempt(self, what: str) -> Iterator[None]:
    """Turns what goes wrong inside into a note."""
    try:
      yield
    except _EXPECTED as e:
      reason = str(e).strip() or type(e).__name__
      self.notes.append(f"No {what}: {reason.splitlines()[0]}")


def curves_section(records: Sequence[Record]) -> Section:
  """Every metric over the steps, all runs over each other."""
  section = Section("Curves")
  sizes = [record.batch_size for record in records]
  by_examples = None not in sizes and len({*sizes}) > 1
  label = "examples seen" if by_examples else "step"
  scales = sizes if by_examples else [1] * len(records)
  if by_examples:
    section.notes.append(
      "Over the examples seen, since the batch sizes differ: "
      + ", ".join(f"{r.name} {size}" for r, size in zip(records, sizes))
      + "."
    )
  for record in records:
    broken = [n for n, (_, y) in record.metrics.items() if not _finite(y)]
    if broken:
      section.notes.append(
        f"{record.name}: not finite at some steps: {', '.join(broken)}."
      )
    if not record.metrics:
      section.notes.append(f"{record.name} has recorded nothing yet.")
  for name in _metric_names(records):
    series = {}
    for record, scale in zip(records, scales):
      if name in record.metrics:
        x, y = thin(record.metrics[name])
        series[record.name] = (x * scale, y)
    is_rate = name == "train/learning_rate"
    names = [record.name for record in records]
    figure = figures.curves(
      name, series, label, names=names, log_scale=not is_rate
    )
    is_main = name in _FIRST or not name.startswith("train/")
    target = section.pictures if is_main else section.more
    target.append(Picture(f"curve_{name}", figure))
  return section


def _finite(values: np.ndarray) -> bool:
  return bool(np.isfinite(values).all())


def _metric_names(records: Sequence[Record]) -> list[str]:
  names = dict.fromkeys(name for r in records for name in r.metrics)
  rest = [name for name in names if name not in _FIRST]
  evals = [name for name in rest if not name.startswith("train/")]
  others = [name for name in rest if name.startswith("train/")]
  return [n for n in _FIRST if n in names] + evals + others


def values_section(records: Sequence[Record]) -> Section:
  """The last value of each metric."""
  section = Section("Last values")
  rows = [["step", *(f"{record.last_step:,}" for record in records)]]
  for name in _metric_names(records):
    cells = [name]
    for record in records:
      cells.append(_last_value(record, name))
    rows.append(cells)
  section.tables.append((["", *(record.name for record in records)], rows))
  return section


def _last_value(record: Record, name: str) -> str:
  if name not in record.metrics:
    return "–"
  x, y = record.metrics[name]
  text = f"{y[-1]:.4f}" if 1e-3 <= abs(y[-1]) < 1e5 else f"{y[-1]:.3g}"
  facts = []
  if x[-1] != record.last_step:
    facts.append(f"step {x[-1]:,}")
  if seen := record.num_seen.get(name.rpartition("/")[0]):
    facts.append(f"n = {seen:,}")
  return f"{text} ({', '.join(facts)})" if facts else text


def config_section(records: Sequence[Record]) -> Section:
  """In what configs, versions and devices differ."""
  section = Section("Config differences")
  if len(records) == 1:
    section.notes.append("There is one run only: nothing to compare.")
    return section
  for what in ("config", "environment"):
    known = [record for record in records if getattr(record, what) is not None]
    for record in records:
      if record not in known:
        section.notes.append(f"{record.name} has no {what}.json.")
    if len(known) < 2:
      continue
    given = [getattr(record, what) for record in known]
    if what == "config":
      given = [schema.with_defaults(one) for one in given]
    rows = [[key, *x] for key, x in differences(given) if key != "command"]
    if rows:
      section.tables.append(([what, *(r.name for r in known)], rows))
    else:
      section.notes.append(f"{what}.json is the same in all.")
  return section


def speed_section(records: Sequence[Record]) -> Section:
  """How fast the runs went, and where their time went."""
  section = Section("Speed")
  timed = [record for record in records if "goodput" in record.timing]
  for record in records:
    if record not in timed:
      section.notes.append(f"{record.name}: no {TIMING_FILE}.")
  if not timed:
    return section
  rows, spent = [], {}
  for record in timed:
    last = {name: y[-1] for name, (_, y) in record.timing.items()}
    seconds = {
      name.removeprefix("seconds/"): value
      for name, value in last.items()
      if name.startswith("seconds/")
    }
    total = sum(seconds.values())
    spent[record.name] = {k: v / total * 100 for k, v in seconds.items() if v}

    def median(name, form, record=record):
      if name not in record.timing:
        return "–"
      return form.format(np.median(record.timing[name][1]))

    rows.append(
      [
        record.name,
        median("examples_per_second", "{:,.0f}"),
        median("examples_per_second_per_device", "{:,.0f}"),
        median("step_seconds", "{:.4g}"),
        median("input_wait_share", "{:.1%}"),
        f"{last['goodput']:.1%}",
        f"{total / 60:,.1f}",
      ]
    )
  columns = ("images/s", "per device", "s/step", "input wait", "goodput", "min")
  section.tables.append((["", *columns], rows))
  series = {
    record.name: thin(record.timing["examples_per_second"])
    for record in timed
    if "examples_per_second" in record.timing
  }
  if series:
    figure = figures.curves(
      "images per second",
      series,
      "step",
      names=[record.name for record in records],
      log_scale=False,
    )
    section.pictures.append(Picture("speed", figure))
  figure = figures.shares("where the time went", spent, "% of the time")
  hint = (
    "Goodput is the share of the time spent in steps that counted, with all "
    "restarts; rates are medians."
  )
  section.pictures.append(Picture("time", figure, hint))
  return section


def model_section(
  record: Record,
  *,
  num_examples: int | None = None,
  num_mistakes: int = 12,
  num_images: int = 4,
  allow_module: str | None = None,
) -> Section:
  """What the model of a run gets wrong, and what it looks at.

  Args:
    record: of the run.
    num_examples: of the eval set to classify, from the first; None for all.
    num_mistakes: to show.
    num_images: to show attention on.
    allow_module: see `vitjax.load`.
  """
  section = Section(record.name)
  key = record.name.replace(os.sep, "_")
  trained = run = None
  with section.attempt("pictures of the model"):
    trained = vitjax.load(record.path, allow_module=allow_module)
    if record.config is None:
      raise FileNotFoundError("the run has no config.json.")
    run = schema.resolve(record.config)
  if run is None:
    return section
  section.notes.append(
    f"Of the checkpoint of step {trained.metadata['step']:,}."
  )
  judged = None
  with section.attempt("mistakes"):
    name, judged = mistakes.judge(trained, run, num_examples)
    _add_mistakes(section, key, record, name, judged, num_mistakes)
  with section.attempt("position similarity"):
    _add_positions(section, key, trained)
  with section.attempt("attention"):
    _add_attention(section, key, trained, run, judged, num_images)
  return section


def _add_mistakes(section, key, record, name, judged, num_mistakes) -> None:
  n = len(judged.label)
  wrong = int((judged.label != judged.prediction).sum())
  part = (
    f"the first {n:,} of {judged.total:,}" if n < judged.total else f"{n:,}"
  )
  section.notes.append(
    f"Eval {name!r}: {wrong:,} of {part} examples are wrong, accuracy "
    f"{judged.accuracy:.4f}."
  )
  many = len(judged.names) > 2 * MOST_CLASSES
  classes = np.arange(len(judged.names))
  title = "confusion matrix"
  hint = (
    "Counts; the colour is the share of a row, the examples of a class. Off "
    "the diagonal are mistakes."
  )
  if many:
    classes = judged.most_confused(MOST_CLASSES)
    title = f"{len(classes)} of {len(judged.names):,} classes"
    hint += " Shown are the classes in the most mistakes."
  figure = figures.confusion(
    title,
    judged.confusion(classes),
    [judged.names[i] for i in classes],
    others=many,
  )
  section.pictures.append(Picture(f"{key}_confusion", figure, hint))
  rows = [
    [judged.names[label], judged.names[prediction], f"{count:,}"]
    for label, prediction, count in judged.pairs(10)
  ]
  if rows:
    section.tables.append((["true", "taken for", "times"], rows))
  shown = judged.worst(num_mistakes)
  if not len(shown):
    section.notes.append("There are no mistakes to show.")
    return
  images = [figures.rgb(judged.image(i)) for i in shown]
  captions = [
    f"says {judged.names[judged.prediction[i]]} ({judged.confidence[i]:.1%})\n"
    f"is {judged.names[judged.label[i]]}\n#{i}"
    for i in shown
  ]
  section.pictures.append(
    Picture(
      f"{key}_mistakes",
      figures.mosaic("worst mistakes", images, captions),
      "The wrong answers that the model is most sure of, with its "
      "probability; # is the number of the example.",
      [
        (figures.data_uri(figures.png(image)), caption)
        for image, caption in zip(images, captions)
      ],
    )
  )


def _add_positions(section, key, trained: Trained) -> None:
  shape = (1, *trained.image_size, trained.channels)
  similarity = np.asarray(
    attention_maps.position_similarity(trained.model, trained.params, shape)
  )
  h, w, *_ = similarity.shape
  rows, columns = (
    np.unique(np.linspace(0, size - 1, MOST_POSITIONS).round().astype(int))
    for size in (h, w)
  )
  figure = figures.grid_of_maps(
    "position similarity",
    similarity[rows][:, columns],
    row_label="row of the patch",
    column_label="column of the patch",
    row_names=rows,
    column_names=columns,
  )
  section.pictures.append(
    Picture(
      f"{key}_positions",
      figure,
      "Each small map is the cosine of the position embedding of one patch "
      "with those of all. Neighbours that are alike say that the model knows "
      "what is next to what.",
    )
  )


def _add_attention(section, key, trained, run, judged, num_images) -> None:
  name, data = mistakes.eval_data(trained, run)
  numbers = range(min(num_images, data.source.num_examples))
  images = [mistakes.image_of(data, i) for i in numbers]
  if not images:
    return
  batch = data.preprocess.on_device({"image": np.stack(images)})["image"]
  show = attention_maps.maps_fn(trained.model)
  heads, rollouts = jax.tree.map(np.asarray, show(trained.params, batch))
  captions = [
    f"says {judged.names[judged.prediction[i]]}\n"
    f"is {judged.names[judged.label[i]]}\n#{i}"
    if judged is not None and i < len(judged.label)
    else f"#{i}"
    for i in numbers
  ]
  if rollouts is not None:
    pairs = [
      np.concatenate([figures.rgb(image), figures.overlay(image, heat)], axis=1)
      for image, heat in zip(images, rollouts)
    ]
    section.pictures.append(
      Picture(
        f"{key}_rollout",
        figures.mosaic("attention rollout", pairs, captions),
        f"The first images of eval {name!r}. Bright patches reach the output "
        "through the attention of all blocks.",
        [
          (figures.data_uri(figures.png(pair)), caption)
          for pair, caption in zip(pairs, captions)
        ],
      )
    )
  else:
    section.notes.append(
      "No attention rollout: the weights of differential attention may be "
      "negative."
    )
  section.pictures.append(
    Picture(
      f"{key}_heads",
      figures.grid_of_maps(
        f"heads on image #{numbers[0]}",
        heads[0],
        row_label="block",
        column_label="head",
        each=True,
      ),
      "What each head of each block reads from, for the pooled token; every "
      "map has its own scale.",
    )
  )


def write(
  records: Sequence[Record],
  out: str | os.PathLike,
  png: str | os.PathLike | None,
  *,
  log: Callable[[str], None] = lambda line: None,
  with_models: bool = True,
  **options: Any,
) -> list[pathlib.Path]:
  """Writes the page and the PNGs; each file is whole or not there.

  Args:
    records: of the runs.
    out: the page.
    png: folder of the PNGs, or None for none.
    log: gets a line before what takes long.
    with_models: whether to load the models and look at them.
    **options: of `model_section`.

  Returns:
    What was written.
  """
  sections = [
    values_section(records),
    curves_section(records),
    config_section(records),
    speed_section(records),
  ]
  for record in records if with_models else ():
    log(f"Looking at the model of {record.name}")
    sections.append(model_section(record, **options))
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
  for section in sections if png is not None else ():
    for picture in (*section.pictures, *section.more):
      name = "".join(
        c if c.isalnum() or c in "-._" else "_" for c in picture.key
      )
      file = pathlib.Path(png) / f"{name}.png"
      with npz.atomic(file) as temporary:
        pathlib.Path(temporary).write_bytes(picture.figure.png())
      written.append(file)
  return written
