"""Runs evaluators on a run folder, an exported file or published weights.

The evaluators are those of training and give the same numbers.
"""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import yaml
from absl import logging

from vitjax import checks, trained
from vitjax import step as step_lib
from vitjax.checkpoint import step_files
from vitjax.config import messages, places, resolving, schema
from vitjax.config.schema import ConfigError
from vitjax.data import sources
from vitjax.data.pp import builder
from vitjax.data.sources.source import DatasetNotPreparedError
from vitjax.evaluate import outputs
from vitjax.evaluate.answers import Answers
from vitjax.evaluate.outputs import OutputAnswers
from vitjax.evaluate.thresholds import Goal, Thresholds, choose
from vitjax.evaluators import tables
from vitjax.evaluators.subject import Subject, make_evaluator
from vitjax.parallel import sharding
from vitjax.run_folder import files, reader

# Default batch size for exported files.
BATCH_SIZE = 64
_HEAD = ("eval", "data", "metric", "value", "n_seen", "95 % interval")


@dataclasses.dataclass(frozen=True)
class Result:
  """Outcome of an eval.

  Attributes:
    name: name of the eval.
    section: its data, split and options.
    metrics: name -> value, with `n_seen`; None if the eval did not run.
    absent: why the eval was skipped, if its data is missing.
    error: why the eval failed, if it did.
    answers: answers to its examples, if they are kept.
    intervals: metric -> 95 % confidence interval, if asked for.
    thresholds: thresholds of its classes, if asked for.
    note: where the thresholds come from, in words.
  """

  name: str
  section: schema.Eval
  metrics: Mapping[str, float] | None = None
  absent: str | None = None
  error: str | None = None
  answers: Answers | OutputAnswers | None = None
  intervals: Mapping[str, tuple[float, float]] | None = None
  thresholds: Thresholds | None = None
  note: str | None = None


def evaluate(
  model: str | os.PathLike,
  evals: Mapping[str, Mapping[str, Any]] | Sequence[str] | None = None,
  *,
  step: int | str = "latest",
  ema: bool = False,
  batch_size: int | None = None,
  patch_sizes: Sequence[int] = (),
  data_dir: str | None = None,
  pretrained_dir: str | None = None,
  allow_module: str | None = None,
  keep_answers: bool = False,
  bootstrap: int = 0,
  metrics: Sequence[str] = (),
  thresholds: Thresholds | Goal | None = None,
) -> Iterator[Result]:
  """Runs one eval after the other, on all devices.

    [result] = evaluation.evaluate(
      "runs/mine", {"knn": {"type": "knn", "split": "test",
                            "train_split": "train"}}
    )
    result.metrics["20nn"]

  Args:
    model, step, ema, pretrained_dir, allow_module: see `vitjax.load`. An
      eval of a run folder's config may name `allow_module` too, and no other
      module.
    evals: sections of `config.evals` by name, in which `data` is by default
      that of training, and `pp` the model's own; or names of the evals of the
      run's config; or None for all of these. Of a run, texts are tokenized
      with the vocabulary in its folder.
    batch_size: batch size of all evals; it does not change the metrics.
    patch_sizes: patch sizes at which all evals run a ViT; (): their own.
    data_dir: where TFDS looks for data sets, by default.
    keep_answers: keep the answers to the examples, of evals of the types
      "classification" without `among` and `labels`, "multi_label" and
      "regression".
    bootstrap: resamples for confidence intervals of the same evals; 0: none.
    metrics: more metrics of the evals of type "classification" without
      `labels` and of type "multi_label", see their option `metrics`.
    thresholds: thresholds of classes to report metrics at; or what to choose
      them for on the first eval that has some: of the type "classification"
      without `among` and `labels`, or "multi_label".

  Yields:
    The result of each eval. One that fails does not stop the others.

  Raises:
    ConfigError: if an eval cannot run on this model, before any runs; other
      errors as in `vitjax.load`.
  """
  run = _run_of(model)
  loaded = trained.load(
    model,
    step=step,
    ema=ema,
    pretrained_dir=pretrained_dir,
    allow_module=allow_module,
  )
  if run is not None:
    _warn_of_changed_data(places.of(model), loaded, run)
  preprocess = builder.build(builder.for_images(loaded.preprocess))
  subject = _subject(loaded, run, preprocess, batch_size, data_dir)
  sections = _sections(evals, run, preprocess.spec, allow_module)
  if run:
    sections = _with_own_vocab(sections, loaded)
  if batch_size is not None:
    sections = {
      name: dataclasses.replace(section, batch_size=batch_size)
      for name, section in sections.items()
    }
  if patch_sizes:
    sections = {
      name: dataclasses.replace(section, patch_sizes=tuple(patch_sizes))
      for name, section in sections.items()
    }
  if metrics:
    sections = _with_metrics(sections, metrics)
  problems = [
    line
    for name, section in sections.items()
    for line in checks.eval_problems(
      f"evals.{name}",
      section,
      two_towers=loaded.has_two_towers,
      pixel_statistics=subject.pixel_statistics,
    )
  ]
  resolving.fail_on(problems)
  has_answers = any(map(_has_answers, sections.values()))
  has_outputs = any(map(_has_outputs, sections.values()))
  if (bootstrap or keep_answers) and not (has_answers or has_outputs):
    raise ConfigError(
      f"{'--bootstrap' if bootstrap else '--examples'} needs an eval of "
      "type=classification without the options among and labels, or of type="
      f"{' or '.join(outputs.TYPES)}, at one patch size; there is none."
    )
  with_thresholds = [name for name, x in sections.items() if _has_scores(x)]
  if thresholds and not with_thresholds:
    raise ConfigError(
      "thresholds need an eval of type=multi_label, or of type=classification "
      "without the options among and labels, at one patch size; there is none."
    )

  mesh = sharding.make_mesh()
  predict = step_lib.make_predict_fn(
    loaded.model, preprocess.on_device, loaded.inputs
  )
  absent, evaluators = {}, {}
  for name, section in sections.items():
    try:
      evaluators[name] = make_evaluator(name, section, subject, predict, mesh)
    except DatasetNotPreparedError as e:
      absent[name] = str(e).splitlines()[0]
  if isinstance(thresholds, Goal) and with_thresholds[0] in absent:
    first = with_thresholds[0]
    raise ConfigError(
      f"thresholds cannot be chosen on {first}: {absent[first]}"
    )
  params = jax.device_put(loaded.params, sharding.replicated(mesh))
  for name, section in sections.items():
    section = dataclasses.replace(section, data=section.data or subject.data)
    if name in absent:
      yield Result(name, section, absent=absent[name])
      continue
    logging.info("%s: %s %s ...", name, section.data, section.split)
    try:
      evaluator = evaluators.pop(name)
      found = dict(evaluator.run(params))
      more: dict[str, Any] = {}
      answers: Answers | OutputAnswers | None = None
      apply = bool(thresholds) and name in with_thresholds
      if keep_answers or bootstrap or apply:
        if _has_outputs(section):
          answers = outputs.answers(section.type, evaluator, params)
        elif _has_answers(section):
          answering = _of_answers(section, keep_logits=apply)
          answers = make_evaluator(
            name, answering, subject, predict, mesh
          ).answers(params)
      if bootstrap and answers is not None:
        more["intervals"] = answers.intervals(bootstrap)
      if keep_answers:
        more["answers"] = answers
      if apply and answers is not None:
        if isinstance(thresholds, Goal) and name == with_thresholds[0]:
          thresholds = _chosen(name, section, answers, thresholds)
        if isinstance(thresholds, Thresholds):
          n_seen = found.pop("n_seen")  # stays the last
          found |= thresholds.metrics(*answers.scores())
          found["n_seen"] = n_seen
          fingerprint = answers.data.source.fingerprint
          more["thresholds"] = thresholds
          more["note"] = thresholds.sentence(fingerprint)
    except (ValueError, RuntimeError, ArithmeticError, OSError) as e:
      yield Result(name, section, error=f"{type(e).__name__}: {e}")
    else:
      yield Result(name, section, metrics=found, **more)


def metric_of(
  model: str | os.PathLike,
  loaded: trained.Trained,
  metric: str,
  *,
  allow_module: str | None = None,
) -> Callable[[Any], float]:
  """A function from weights to the value of a metric of a run's eval.

  Args:
    model: the run folder whose config has the eval.
    loaded: a model of the architecture of the weights.
    metric: EVAL/METRIC.
    allow_module: see `vitjax.load`.

  Raises:
    ConfigError: if the run has no such eval, or the eval no such metric.
  """
  run, (name, _, wanted) = _run_of(model), metric.partition("/")
  preprocess = builder.build(builder.for_images(loaded.preprocess))
  sections = _sections([name], run, preprocess.spec, allow_module)
  section = _with_own_vocab(sections, loaded)[name]
  predict = step_lib.make_predict_fn(
    loaded.model, preprocess.on_device, loaded.inputs
  )
  mesh = sharding.make_mesh()
  subject = _subject(loaded, run, preprocess, None, None)
  evaluator = make_evaluator(name, section, subject, predict, mesh)

  def value(params):
    params = jax.device_put(params, sharding.replicated(mesh))
    found = dict(evaluator.run(params))
    if wanted not in found:
      hint = messages.did_you_mean(wanted, found)
      known = messages.shorten([f"{name}/{x}" for x in found])
      raise ConfigError(
        f"eval {name!r} does not give {wanted!r}.{hint} It gives {known}."
      )
    return float(found[wanted])

  return value


def _with_own_vocab(
  sections: Mapping[str, schema.Eval], loaded: trained.Trained
) -> dict[str, schema.Eval]:
  """Evals that read the vocabulary of the model, wherever a run was started."""
  if "tokenizer" not in loaded.metadata:
    return dict(sections)
  vocab = loaded.metadata["tokenizer"]["vocab"]
  return {
    name: dataclasses.replace(section, pp=builder.with_vocab(section.pp, vocab))
    for name, section in sections.items()
  }


def _has_answers(section: schema.Eval) -> bool:
  if section.patch_sizes:  # each size has other answers
    return False
  unknown = {"among", "labels"} & {*section.options}
  return section.type == "classification" and not unknown


def _has_outputs(section: schema.Eval) -> bool:
  return section.type in outputs.TYPES and not section.patch_sizes


def _has_scores(section: schema.Eval) -> bool:
  is_multi_label = section.type == "multi_label" and _has_outputs(section)
  return is_multi_label or _has_answers(section)


def _chosen(
  name: str,
  section: schema.Eval,
  answers: Answers | OutputAnswers,
  goal: Goal,
) -> Thresholds:
  source = answers.data.source
  return Thresholds(
    choose(*answers.scores(), goal),
    str(goal),
    f"{name} ({section.data} {section.split}, {source.num_examples:,} images)",
    source.fingerprint,
  )


def _with_metrics(
  sections: Mapping[str, schema.Eval], metrics: Sequence[str]
) -> dict[str, schema.Eval]:
  """The evals, with more metrics where they can have some."""
  changed = {}
  for name, section in sections.items():
    if section.type in ("classification", "multi_label") and (
      "labels" not in section.options
    ):
      wanted = (*section.options.get("metrics", ()), *metrics)
      options = {**section.options, "metrics": wanted}
      changed[name] = dataclasses.replace(section, options=options)
  if not changed:
    raise ConfigError(
      "--metrics needs an eval of type classification or multi_label without "
      "the option labels; there is none. Evals of other types always report "
      "all of their metrics."
    )
  return {**sections, **changed}


def _of_answers(section: schema.Eval, keep_logits: bool) -> schema.Eval:
  options = {k: v for k, v in section.options.items() if k == "same_classes"}
  options["keep_logits"] = keep_logits
  return dataclasses.replace(section, type=Answers.__module__, options=options)


def _run_of(model: str | os.PathLike) -> schema.RunConfig | None:
  """The config of a run folder."""
  file = places.of(model) / files.CONFIG
  if not file.exists():
    return None
  return resolving.resolve(reader.read_json(file))


def _warn_of_changed_data(
  folder: pathlib.Path, loaded: trained.Trained, run: schema.RunConfig
) -> None:
  """Says so if a run may have been trained on what is held out today."""
  data = run.input.data
  if not sources.is_named(data):
    return
  record = step_files.read_record(
    folder / "checkpoints", loaded.metadata["step"]
  )
  try:
    source = sources.open_source(data, run.input.split)
  except (ValueError, OSError):
    return  # The evals of these data say why.
  if record["info"].get("fingerprint", source.fingerprint) != (
    source.fingerprint
  ):
    logging.warning(
      "%s, split %r: the images differ from those that this run was trained "
      "on. Metrics on the same data may be too high: what is held out today "
      "may have been trained on. Metrics of the run itself are in %s.",
      data,
      run.input.split,
      folder / "metrics.jsonl",
    )


def _subject(
  loaded: trained.Trained,
  run: schema.RunConfig | None,
  preprocess: builder.Preprocess,
  batch_size: int | None,
  data_dir: str | None,
) -> Subject:
  two_towers = loaded.has_two_towers
  known_tokenizer = two_towers and "tokenizer" in loaded.metadata
  return Subject(
    data=loaded.metadata.get("data"),
    data_dir=data_dir or (run.input.data_dir if run else None),
    cache=bool(run and run.input.cache),
    batch_size=batch_size or (run.input.batch_size if run else BATCH_SIZE),
    num_classes=None if two_towers else loaded.model.num_classes,
    class_names=loaded.class_names,
    loss=loaded.metadata.get("loss", "softmax_xent"),
    pixel_statistics=preprocess.pixel_statistics,
    tokenizer=loaded.tokenizer if known_tokenizer else None,
    image_shape=(*loaded.image_size, loaded.channels),
    target_scale=loaded.target_scale,
  )


def _sections(
  evals: Mapping[str, Mapping[str, Any]] | Sequence[str] | None,
  run: schema.RunConfig | None,
  pp: str,
  allow_module: str | None,
) -> dict[str, schema.Eval]:
  """The evals to run, by name."""
  known = dict(run.evals) if run else {}
  if not isinstance(evals, Mapping):
    names = list(known if evals is None else evals)
    if not names:
      raise ConfigError(
        "the model has no evals of its own"
        f"{'' if run else ' because it is no run folder'}: give some, such as "
        "--evals='{test: {data: cifar10, split: test}}'."
      )
    if unknown := [name for name in names if name not in known]:
      raise ConfigError(
        f"{unknown[0]!r} is not an eval of the model. It has: "
        f"{', '.join(known) or 'none'}."
      )
    for name in names:
      kind = known[name].type
      if "." in kind and kind != allow_module:
        raise ConfigError(
          f"eval {name!r} of the run names the module {kind!r}, and importing "
          "it would run its code. If you trust it, allow it: "
          f"--allow_module={kind}."
        )
    return {name: known[name] for name in names}
  return resolving.resolve_evals(evals, pp=pp)


def parse_evals(text: str | None) -> Mapping[str, Any] | Sequence[str] | None:
  """The value of --evals, as `evaluate` takes it.

  Raises:
    ValueError: if it cannot be read.
  """
  if text is None:
    return None
  path = pathlib.Path(text)
  is_file = path.suffix in (".yaml", ".yml", ".json")
  if not is_file and not text.lstrip().startswith("{"):
    return [name.strip() for name in text.split(",") if name.strip()]
  try:
    if is_file:
      text = path.read_text(encoding="utf-8")
    found = yaml.safe_load(text)
  except (OSError, UnicodeDecodeError) as e:
    raise ValueError(f"--evals={path} cannot be read: {e}") from None
  except yaml.YAMLError as e:
    mark = getattr(e, "problem_mark", None)
    where = (
      f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    )
    raise ValueError(
      f"--evals is not YAML{where}: {getattr(e, 'problem', e)}. Quote values "
      'with commas or brackets, such as {test: {split: "train[:10%]"}}.'
    ) from None
  if not isinstance(found, Mapping) or not found:
    raise ValueError("--evals must be sections by name: {NAME: {split: ...}}.")
  return found


def parse_patch_sizes(texts: Sequence[str]) -> list[int]:
  """The value of --patch_sizes, as `evaluate` takes it.

  Raises:
    ValueError: if one is not a number of pixels.
  """
  for text in texts:
    if not text.isdecimal() or int(text) == 0:
      raise ValueError(
        f"--patch_sizes={','.join(texts)}: {text!r} is not a number of pixels. "
        "Give some, such as --patch_sizes=8,16."
      )
  return [int(text) for text in texts]


def to_table(results: Iterable[Result]) -> str:
  """A line for each metric; tables of the metrics of single classes."""
  results = list(results)
  rows = [_HEAD]
  for result in results:
    section = result.section
    first = (result.name, f"{section.data} {section.split}")
    if result.metrics is None:
      reason = result.error or f"skipped: {result.absent}"
      rows.append((*first, reason.splitlines()[0], "", "", ""))
      continue
    n_seen = result.metrics.get("n_seen", "")
    for name, value in tables.by_class(result.metrics).whole.items():
      if name != "n_seen":
        text = f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
        interval = (result.intervals or {}).get(name)
        between = " .. ".join(f"{x:.4g}" for x in interval or ())
        seen = f"{n_seen:,}" if n_seen else ""
        rows.append((*first, name, text, seen, between))
        first = ("", "")
  widths = [
    max(len(row[i]) for row in rows if row[3] or i < 2)
    for i in range(len(_HEAD))
  ]
  lines = []
  if not any(result.intervals for result in results):
    rows = [(*row[:-1], "") for row in rows]
  for *texts, value, n_seen, between in rows:
    cells = [text.ljust(width) for text, width in zip(texts, widths)]
    cells += [value.rjust(widths[3]), n_seen.rjust(widths[4]), between]
    lines.append("  ".join(cells).rstrip())
  for result in results:
    metrics = result.metrics or {}
    if found := tables.lines(metrics, elsewhere="--json"):
      unit = tables.by_class(metrics).unit
      lines += ["", f"{result.name}, by {unit}:", *found]
    if result.note:
      lines.append(result.note)
  return "\n".join(lines)


def to_json(result: Result) -> str:
  """One JSON object; NaN and infinities are strings, as in metrics.jsonl."""
  section = result.section
  content: dict[str, Any] = {
    "eval": result.name,
    "type": section.type,
    "data": section.data,
    "split": section.split,
  }
  if result.metrics is not None:
    content["metrics"] = {
      name: value if math.isfinite(value) else str(value)
      for name, value in result.metrics.items()
    }
  if result.intervals is not None:
    content["intervals"] = result.intervals
  for key in ("note", "absent", "error"):
    if getattr(result, key) is not None:
      content[key] = getattr(result, key)
  return json.dumps(content, allow_nan=False)
