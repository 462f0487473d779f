"""Measures the speed of models on this machine, and finds their accuracy.

Speed is measured on random images that are already on the device. The models
take turns, so that a machine that slows down slows all of them. The accuracy is
that of a run's record or of a published table; it is never guessed.

`timm-12k.csv` beside this file has the models of timm's comparison of weights
from ImageNet-12k and -22k (huggingface.co/blog/rwightman/vit-sbb-imagenet-full)
with the accuracies of results/results-imagenet.csv in timm's repository. The
rows of ViT, DeiT III and ConvNeXt are the base and large ones of that file.
"""

import csv
import dataclasses
import io
import itertools
import json
import math
import os
import pathlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vitjax
from vitjax import models
from vitjax.models import batch_norm, flops
from vitjax.parallel import devices
from vitjax.run_folder import history
from vitjax.weights import published as published_weights
from vitjax.weights import zoo
from vitjax.weights.hub import repository

_SECONDS = 0.3  # least length of a measurement
_TABLES = {"@timm-12k": pathlib.Path(__file__).parent / "timm-12k.csv"}


@dataclasses.dataclass(frozen=True)
class Candidate:
  """A model to measure.

  Attributes:
    name: name as given by the user.
    model: model of images; of two towers the image tower.
    params: its parameters with their running statistics, see
      `batch_norm.join`, or their shapes if the values are not known.
    image_shape: shape (h, w, c) of an image.
    accuracy: its accuracy, or None.
  """

  name: str
  model: Any
  params: Mapping[str, Any]
  image_shape: tuple[int, int, int]
  accuracy: "Accuracy | None"


@dataclasses.dataclass(frozen=True)
class Accuracy:
  """Top-1 and top-5 accuracy in per cent, with its source and data set."""

  top1: float
  top5: float | None
  source: str


# (model, image size as in a row, or None for any) -> accuracy.
Accuracies = Mapping[tuple[str, str | None], Accuracy]


@dataclasses.dataclass(frozen=True)
class Row:
  """A row of the table, with timm's names of columns.

  Attributes:
    model: name of the model.
    img_size: height, or height x width, in pixels.
    top1, top5: accuracy in per cent, or None.
    accuracy: source of the accuracy and its data set; empty without one.
    param_count: parameters in millions.
    infer_gmacs: multiplications of matrix products and convolutions for one
      image, in 1e9.
    infer_samples_per_sec: images per second.
    infer_step_time: median time of a batch in milliseconds.
    infer_batch_size: images per batch.
    pareto: whether no model with an accuracy from the same source is both
      faster and more accurate; None without an accuracy.
  """

  model: str
  img_size: str
  top1: float | None
  top5: float | None
  accuracy: str
  param_count: float
  infer_gmacs: float
  infer_samples_per_sec: float
  infer_step_time: float
  infer_batch_size: int
  pareto: bool | None


COLUMNS = tuple(field.name for field in dataclasses.fields(Row))


def expand(
  names: Sequence[str], known: Accuracies
) -> tuple[list[str], Accuracies]:
  """Puts the models of a table for its name, "@timm-12k", and adds accuracies.

  Raises:
    ValueError: if there is no such table.
  """
  found = []
  for name in names:
    if not name.startswith("@"):
      found.append(name)
    elif name in _TABLES:
      table = read_accuracies(_TABLES[name], "timm's results-imagenet.csv")
      found += [f"{model}@{size}" for model, size in table]
      known = {**known, **table}
    else:
      raise ValueError(
        f"{name} is not a table: known are {', '.join(_TABLES)}."
      )
  return found, known


def find(
  name: str,
  published: Accuracies,
  dtype: str,
  allow_module: str | None = None,
) -> Candidate:
  """A model by the path of a run or a file, or by a published name.

  No weights are downloaded: a published name gets random parameters, which does
  not change its speed.

  Args:
    name: path, repository of the hub, name of weights (see `weights.zoo`), of
      `models.list()` or of the table of accuracies. After a published name
      "@288" asks for that image size.
    published: from `read_accuracies`.
    dtype: type of activations.
    allow_module: see `vitjax.load`.

  Raises:
    ValueError: if there is no such model, or it cannot be loaded.
  """
  accuracy = None
  if os.path.exists(name):
    run = vitjax.load(name, allow_module=allow_module)
    model, params = run.model, run.params
    shape = (*run.image_size, run.channels)
    if os.path.isdir(name):
      accuracy = recorded(history.read([name])[0])
  else:
    base, _, size = name.rpartition("@")
    is_resized = size.isdigit() and not repository.is_name(name)
    name = base if is_resized else name
    model, shape = _published(name, published)
    if is_resized:
      shape = (int(size), int(size), 3)
    params = None
  if accuracy is None:
    accuracy = published.get(
      (name, img_size(shape)), published.get((name, None))
    )
  if towers := model.towers():
    model, params = towers["img"], params and params["img"]
  model = _in(dtype, model)
  if params is None:
    image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    params = batch_norm.join(
      jax.eval_shape(model.init, jax.random.key(0), image)
    )
  return Candidate(name, model, params, shape, accuracy)


def _published(
  name: str, published: Accuracies
) -> tuple[Any, tuple[int, int, int]]:
  """The model of a name, and the shape of its images."""
  if repository.is_name(name):  # of which config.json is read
    about = published_weights.describe(name)
    return models.create(**about["model"]), (*about["image_size"], 3)
  known = models.list()
  try:
    entry = zoo.find(name)
    model, size = models.create(entry.model, **entry.options), entry.image_size
    return model, (size, size, 3)
  except KeyError as e:
    if name in known:
      size = known[name]["image_size"]
      return models.create(name), (size, size, 3)
    # timm's names are those of an architecture, a point, and those of weights.
    architecture = name.partition(".")[0]
    if architecture in known and any(name == model for model, _ in published):
      size = known[architecture]["image_size"]
      return models.create(architecture, num_classes=1000), (size, size, 3)
    raise ValueError(
      f"{name!r} is not a run folder, a file, the name of published weights or "
      f"a name of vitjax.models.list(): {e.args[0]}"
    ) from None


def recorded(record: history.Record) -> Accuracy | None:
  """The last accuracy that a run has recorded, of its first eval with one."""
  for key, (_, values) in record.metrics.items():
    name, _, metric = key.rpartition("/")
    if metric != "acc@1":
      continue
    group = name.partition("/")[0]  # val/patch8: val
    section = ((record.config or {}).get("evals") or {}).get(group, {})
    data = section.get("data") or (record.config or {}).get("input", {}).get(
      "data", ""
    )
    on = " ".join(filter(None, (data, section.get("split"))))
    top5 = record.metrics.get(f"{name}/acc@5")
    seen = record.num_seen.get(group)
    return Accuracy(
      top1=100 * float(values[-1]),
      top5=None if top5 is None else 100 * float(top5[1][-1]),
      source=f"measured: {on or name}, n = {seen:,}",
    )
  return None


def read_accuracies(
  file: str | os.PathLike, source: str | None = None
) -> Accuracies:
  """Published accuracies by the name of the model and the size of the images.

  Args:
    file: CSV with columns `model`, `top1` and maybe `img_size` and `top5`, in
      per cent, such as the tables of results that timm publishes.
    source: what to call it. None: the name of the file.

  Raises:
    ValueError: if it is not such a file.
  """
  path = pathlib.Path(file)
  found = {}
  with open(path, newline="", encoding="utf-8") as stream:
    rows = csv.DictReader(stream)
    if missing := {"model", "top1"} - {*(rows.fieldnames or ())}:
      raise ValueError(
        f"{path} has no column {' or '.join(sorted(missing))}; it has "
        f"{', '.join(rows.fieldnames or ['none'])}."
      )
    for number, row in enumerate(rows, 2):
      try:
        top1 = float(row["top1"])
        top5 = float(row["top5"]) if row.get("top5") else None
      except ValueError as e:
        raise ValueError(f"{path}, line {number}: {e}.") from e
      if not 0 <= top1 <= 100:
        raise ValueError(
          f"{path}, line {number}: top1={top1:g} is not a percentage."
        )
      key = row["model"], row.get("img_size")
      found[key] = Accuracy(top1, top5, f"published: {source or path.name}")
  return found


def measure(
  candidates: Sequence[Candidate],
  *,
  batch_size: int,
  repeats: int,
  log: Callable[[str], None] = lambda line: None,
) -> list[Row]:
  """Measures the speed of the models in turns; those that do not fit lack.

  Args:
    candidates: from `find`.
    batch_size: images per batch.
    repeats: measurements of each model; the median counts.
    log: called with a line before anything that takes long, and for a model
      that needs more memory than there is.
  """
  measured, runs, numbers = [], [], []
  for candidate in candidates:
    log(
      f"Compiling {candidate.name} at {img_size(candidate.image_shape)} pixels"
    )
    try:
      run = compile_forward(candidate, batch_size)
    except MemoryError as e:
      log(f"Left out: {candidate.name} {e}")
      continue
    measured.append(candidate)
    runs.append(run)
    numbers.append(math.ceil(_SECONDS / max(_seconds(run, 1), 1e-6)))
  seconds = [[] for _ in runs]
  for repetition in range(repeats):
    for i in range(len(runs)):  # each model is the first in some turn
      at = (i + repetition) % len(runs)
      seconds[at].append(_seconds(runs[at], numbers[at]))
  medians = [statistics.median(times) for times in seconds]
  return with_front(
    [
      Row(
        model=candidate.name,
        img_size=img_size(candidate.image_shape),
        top1=_rounded(candidate.accuracy.top1 if candidate.accuracy else None),
        top5=_rounded(candidate.accuracy.top5 if candidate.accuracy else None),
        accuracy=candidate.accuracy.source if candidate.accuracy else "",
        param_count=round(
          _count(batch_norm.split(candidate.params)["params"]) / 1e6, 3
        ),
        infer_gmacs=round(gmacs(candidate), 3),
        infer_samples_per_sec=float(f"{batch_size / median:.6g}"),
        infer_step_time=round(1000 * median, 3),
        infer_batch_size=batch_size,
        pareto=None,
      )
      for candidate, median in zip(measured, medians)
    ]
  )


def compile_forward(
  candidate: Candidate, batch_size: int
) -> Callable[[], jax.Array]:
  """A function that computes the logits of a batch, called twice already.

  Raises:
    MemoryError: if it needs more memory than the device has.
  """
  rng = np.random.default_rng(0)
  variables = batch_norm.split(candidate.params)
  shape = (batch_size, *candidate.image_shape)
  apply = jax.jit(lambda v, x: candidate.model.apply(v, x)[0])
  try:
    compiled = apply.lower(
      variables, jax.ShapeDtypeStruct(shape, jnp.float32)
    ).compile()
    memory = compiled.memory_analysis()
    needed = 0
    if memory is not None:
      needed = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    limit = devices.memory_of(jax.devices()[0])
    if limit and needed > limit:
      raise MemoryError(
        f"needs {needed / 2**30:.1f} GiB of {limit / 2**30:.1f} GiB."
      )

    def value(x):
      if not isinstance(x, jax.ShapeDtypeStruct):
        return x
      # Positive, as variances are.
      return np.abs(rng.normal(0, 0.02, x.shape)).astype(np.float32)

    variables = jax.device_put(jax.tree.map(value, variables))
    image = jax.device_put(rng.normal(size=shape).astype(np.float32))
    run = lambda: compiled(variables, image)  # noqa: E731
    for _ in range(2):  # buffers and caches
      jax.block_until_ready(run())
  except jax.errors.JaxRuntimeError as e:
    if "RESOURCE_EXHAUSTED" not in str(e):
      raise
    raise MemoryError(f"needs too much memory: {e}".splitlines()[0]) from e
  return run


def _seconds(run: Callable[[], Any], number: int) -> float:
  """Seconds per call, over `number` calls in a row."""
  result = None
  start = time.perf_counter()
  for _ in itertools.repeat(None, number):
    result = run()
  jax.block_until_ready(result)
  return (time.perf_counter() - start) / number


def gmacs(candidate: Candidate) -> float:
  """Multiplications for one image, in 1e9, see `flops`."""
  # In this type nothing is computed twice, as attention in 16 bits is, and
  # depth-wise convolutions are not sums, as they are in float32.
  dtype = "float64"
  image = jax.ShapeDtypeStruct((1, *candidate.image_shape), dtype)
  model = _in(dtype, candidate.model)
  with jax.enable_x64(True):
    jaxpr = jax.make_jaxpr(lambda v, x: model.apply(v, x)[0])(
      batch_norm.split(candidate.params), image
    )
  return flops.matrix_products(jaxpr.jaxpr) / 2e9


def _in(dtype: str, model: Any) -> Any:
  """The model computing in `dtype`, if it has this option."""
  return model.clone(dtype=dtype) if hasattr(model, "dtype") else model


def _count(params) -> int:
  return sum(math.prod(x.shape) for x in jax.tree.leaves(params))


def img_size(image_shape: tuple[int, ...]) -> str:
  """The column `img_size`."""
  h, w, _ = image_shape
  return str(h) if h == w else f"{h}x{w}"


def _rounded(value: float | None) -> float | None:
  return None if value is None else round(value, 3)


def with_front(rows: Sequence[Row]) -> list[Row]:
  """The rows with `pareto` as it is among them.

  On the front are models that no other beats: at least as good at both, and
  better at one.
  """

  def beats(other, row):
    a = other.infer_samples_per_sec, other.top1
    b = row.infer_samples_per_sec, row.top1
    return a != b and a[0] >= b[0] and a[1] >= b[1]

  def on_front(row):
    rivals = [x for x in rows if row.accuracy and x.accuracy == row.accuracy]
    return not any(beats(x, row) for x in rivals) if rivals else None

  return [dataclasses.replace(row, pareto=on_front(row)) for row in rows]


def groups(
  rows: Sequence[Row],
) -> dict[str, list[tuple[str, float, float, float, bool | None]]]:
  """Points of models with a known accuracy, by its source, for a plot."""
  found = {}
  for row in rows:
    if row.top1 is not None:
      point = (
        row.model,
        row.infer_samples_per_sec,
        row.param_count,
        row.top1,
        row.pareto,
      )
      found.setdefault(row.accuracy, []).append(point)
  return found


def to_markdown(rows: Sequence[Row]) -> str:
  """The table as Markdown."""
  cells = [COLUMNS, *([_cell(row, name) for name in COLUMNS] for row in rows)]
  cells = [[cell.replace("|", "\\|") for cell in row] for row in cells]
  widths = [max(map(len, column)) for column in zip(*cells)]
  lines = [
    "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths)) + " |"
    for row in cells
  ]
  lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
  return "\n".join(lines) + "\n"


def to_csv(rows: Sequence[Row]) -> str:
  """The table as CSV; unknown cells are empty."""
  text = io.StringIO()
  writer = csv.writer(text, lineterminator="\n")
  writer.writerow(COLUMNS)
  writer.writerows([_cell(row, name) for name in COLUMNS] for row in rows)
  return text.getvalue()


def read_rows(file: str | os.PathLike) -> list[Row]:
  """The rows of a file that `to_csv` wrote.

  Raises:
    ValueError: if the file is another one.
  """
  with open(file, newline="", encoding="utf-8") as stream:
    table = csv.DictReader(stream)
    if tuple(table.fieldnames or ()) != COLUMNS:
      raise ValueError(
        f"{file} is not a table of vitjax.pareto: its columns are not "
        f"{', '.join(COLUMNS)}. Write to another file, or leave out --resume."
      )
    return [
      Row(
        **{
          name: _READ.get(name, lambda x: float(x) if x else None)(row[name])
          for name in COLUMNS
        }
      )
      for row in table
    ]


# Columns of tables that are not numbers, or whole ones.
_READ: Mapping[str, Callable[[str], Any]] = {
  "model": str,
  "img_size": str,
  "accuracy": str,
  "infer_batch_size": int,
  "pareto": {"True": True, "False": False, "": None}.get,
}


def to_json(rows: Sequence[Row], facts: Mapping[str, Any]) -> str:
  """The rows, and facts about the machine, as JSON."""
  return json.dumps(
    {**facts, "rows": [dataclasses.asdict(row) for row in rows]}, indent=2
  )


def _cell(row: Row, name: str) -> str:
  value = getattr(row, name)
  return "" if value is None else str(value)
