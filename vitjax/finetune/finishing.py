"""After training: evaluates and exports the best checkpoint, and reports."""

import pathlib

from absl import logging

from vitjax import export
from vitjax.evaluate import evaluation
from vitjax.run_folder import files, history

EVALUATION, WEIGHTS, REPORT = "evaluation.jsonl", "best.npz", "report.html"


def finish(workdir: pathlib.Path, test: str | None) -> str:
  """Writes these files into the run folder; returns a table of metrics.

  Args:
    workdir: folder of a finished run.
    test: split that training has not seen; None without one.

  Raises:
    ValueError: if an eval fails.
  """
  results = [*evaluation.evaluate(workdir, ["val"], step="best")]
  if test:
    section = {"split": test, "metrics": results[0].section.options["metrics"]}
    results += evaluation.evaluate(workdir, {"test": section}, step="best")
  for result in results:
    if result.metrics is None:
      raise ValueError(f"eval {result.name}: {result.error or result.absent}")
  lines = map(evaluation.to_json, results)
  files.write_text(workdir / EVALUATION, "\n".join(lines))
  export.export(workdir, workdir / WEIGHTS, step="best")
  try:
    from vitjax.report import reporting

    reporting.write(history.read([workdir]), workdir / REPORT, None)
  except ImportError as e:
    logging.warning("No report: %s", e)
  return evaluation.to_table(results)
