r"""Evaluates a run, an exported file or published weights.

  python -m vitjax.evaluate --model=runs/quickstart
  python -m vitjax.evaluate --model=runs/quickstart --step=best --evals=test
  python -m vitjax.evaluate --model=digits.npz \
    --evals='{knn: {type: knn, split: test, train_split: train}}'
  python -m vitjax.evaluate --model=B_16.npz --evals=evals.yaml --json

--evals has names of the run's own evals (all of them without it), or new ones
as in a config's section `evals`: YAML or JSON, or a file of it. In it, quote
what has commas or brackets: split: "train[:10%]". By default `type` is
classification, `data` that of training and `pp` the model's own preprocessing.
docs/evaluation.md has all types and options.

An eval whose data is not there is left out and said in a line.

Exit codes: 0 done, 1 an error, an eval that failed, or with --strict one that
was left out.
"""

import json
import math
import pathlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml
from absl import app, flags

from vitjax import command_line

_MODEL = flags.DEFINE_string(
  "model", None, "Run folder, exported file or published name.", required=True
)
_EVALS = flags.DEFINE_string(
  "evals", None, "Names, sections, or a .yaml or .json file of sections."
)
_STEP = flags.DEFINE_string(
  "step", "latest", "Checkpoint of a run folder: latest, best or a number."
)
_EMA = flags.DEFINE_bool(
  "ema", False, "The averaged parameters of a run with config.ema."
)
_BATCH_SIZE = flags.DEFINE_integer(
  "batch_size",
  None,
  "Images at a time on all devices; the metrics do not depend on it.",
  lower_bound=1,
)
_DATA_DIR = flags.DEFINE_string(
  "data_dir", None, "Where TFDS looks for data sets."
)
_PRETRAINED_DIR = flags.DEFINE_string(
  "pretrained_dir", None, "Where to look for published weights."
)
_STRICT = flags.DEFINE_bool(
  "strict", False, "An eval whose data is not there is an error."
)
_JSON = flags.DEFINE_bool("json", False, "Print one JSON object per eval.")
_OUT = flags.DEFINE_string("out", None, "File for these JSON lines.")

HEAD = ("eval", "data", "metric", "value", "n_seen")


def parse_evals(text: str | None) -> Mapping[str, Any] | Sequence[str] | None:
  """What --evals asks for, see `evaluation.evaluate`.

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
    raise ValueError(
      "--evals has to be sections by name: {NAME: {split: ...}}."
    )
  return found


def to_table(results: Iterable) -> str:
  """A line for each metric."""
  rows = [HEAD]
  for result in results:
    section = result.section
    first = (result.name, f"{section.data} {section.split}")
    if result.metrics is None:
      reason = result.error or f"left out: {result.absent}"
      rows.append((*first, reason.splitlines()[0], "", ""))
      continue
    n_seen = result.metrics.get("n_seen", "")
    for name, value in result.metrics.items():
      if name != "n_seen":
        text = f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
        rows.append((*first, name, text, f"{n_seen:,}" if n_seen else ""))
        first = ("", "")
  widths = [
    max(len(row[i]) for row in rows if row[3] or i < 2)
    for i in range(len(HEAD))
  ]
  lines = []
  for *texts, value, n_seen in rows:
    cells = [text.ljust(width) for text, width in zip(texts, widths)]
    cells += [value.rjust(widths[3]), n_seen.rjust(widths[4])]
    lines.append("  ".join(cells).rstrip())
  return "\n".join(lines)


def to_json(result) -> str:
  """One JSON object; NaN and infinities are strings, as in metrics.jsonl."""
  section = result.section
  content = {
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
  for key in ("absent", "error"):
    if getattr(result, key) is not None:
      content[key] = getattr(result, key)
  return json.dumps(content, allow_nan=False)


def main(argv: list[str]) -> None:
  """Evaluates, prints, and ends with a code that says how it went."""
  if len(argv) > 1:
    sys.exit(f"vitjax.evaluate: {argv[1]!r} is not a flag; use --model=...")
  out = pathlib.Path(_OUT.value) if _OUT.value else None
  if out is not None and not out.absolute().parent.is_dir():
    sys.exit(f"vitjax.evaluate: --out={out}: there is no such folder.")
  step = int(_STEP.value) if _STEP.value.isdigit() else _STEP.value
  command_line.set_up_logging()
  results = []
  try:
    evals = parse_evals(_EVALS.value)

    from vitjax import evaluation, run_folder

    for result in evaluation.evaluate(
      _MODEL.value,
      evals,
      step=step,
      ema=_EMA.value,
      batch_size=_BATCH_SIZE.value,
      data_dir=_DATA_DIR.value,
      pretrained_dir=_PRETRAINED_DIR.value,
    ):
      results.append(result)
      if _JSON.value:
        print(to_json(result), flush=True)
    if out is not None:
      run_folder.write_text(out, "\n".join(map(to_json, results)))
  except (ValueError, OSError, RuntimeError, KeyError, ImportError) as e:
    sys.exit(f"vitjax.evaluate: {e}")
  if not _JSON.value:
    print(to_table(results))
  failed = [x for x in results if x.error or (x.absent and _STRICT.value)]
  for result in failed:
    reason = result.error or result.absent
    print(f"vitjax.evaluate: {result.name}: {reason}", file=sys.stderr)
  sys.exit(1 if failed else 0)


if __name__ == "__main__":
  app.run(main, flags_parser=command_line.parse_flags)
