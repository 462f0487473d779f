r"""Trains a small grid of settings, and says which is the best.

  vitjax sweep --config=quickstart.py --metric=test/acc@1 \
    --over=optim.learning_rate=1e-3,3e-3,1e-2 --over=total_epochs=5,10
  vitjax sweep --config=mine.py --over=schedule.decay=cosine,linear \
    --config.seed=1 --workdir=runs/decay

Each --over is a key of the config and its values; all combinations are trained
one after the other, each in a run folder of its own below --workdir. At the end
there are a table (sweep.csv), a plot (sweep.png) and the command of the best
point. A point counts by its metric at the end of its run.

After an interruption the same command continues: finished points are skipped,
and the point that was interrupted is resumed. Values may be added later. A
point whose loss is not finite is listed as diverged. Exit codes are those of
`vitjax train`.
"""

import pathlib
import shlex
import sys
from collections.abc import Mapping

from absl import flags, logging
from ml_collections import config_flags

from vitjax import main as training
from vitjax.config import command_line, flag, places, resolving, schema
from vitjax.sweep import grid

FLAGS = flags.FLAGS
_STATE = "sweep.json"


def define_flags() -> None:
  """Defines the flags of the command."""
  training.define_flags()
  flags.DEFINE_multi_string(
    "over",
    [],
    "KEY=VALUE,VALUE,...: a key of the config and its values, such as "
    "optim.learning_rate=1e-3,3e-3. Give it once for each key.",
  )
  flags.DEFINE_string(
    "metric",
    None,
    "EVAL/METRIC that chooses the best point, such as val/acc@1. Default: "
    "config.checkpoint.best_metric.",
  )
  flags.DEFINE_enum(
    "mode",
    None,
    ["max", "min"],
    "Whether its largest or smallest value is the best; default: by its name.",
  )


def main(argv: list[str]) -> None:
  """Trains the points that are not finished, and reports all."""
  del argv
  command_line.set_up_logging()
  try:
    axes = [grid.parse(text) for text in FLAGS.over]
    if not axes:
      raise ValueError(
        "--over is missing, such as --over=optim.learning_rate=1e-3,3e-3,1e-2."
      )
    workdir = _workdir(axes)
    training.check_writable(workdir)
    base = flag.read().to_dict()
    points = grid.points(axes)
    runs = {point.name: _resolve(base, point) for point in points}
    metric, mode = _metric_and_mode(next(iter(runs.values())))

    from vitjax import checks

    for point in points:
      try:
        checks.check(runs[point.name])
      except ValueError as e:
        raise ValueError(f"point {point.name}: {e}") from e
  except (ValueError, OSError, ImportError) as e:
    sys.exit(f"vitjax.sweep: {type(e).__name__}: {e}")
  with training.exit_codes(workdir):
    is_main = training.start_processes(runs[points[0].name], workdir) == 0
    training.set_up_jax(workdir)

    from vitjax.run_folder import identity

    for point in points:  # before hours of work
      identity.check_config(workdir / point.name, runs[point.name])
    finished = _read(workdir)
    for i, point in enumerate(points, 1):
      if point.name in finished:
        logging.info("%s is finished already.", point.name)
        continue
      if is_main:
        logging.info("Point %d of %d: %s", i, len(points), point.name)
      finished[point.name] = _train(runs[point.name], workdir / point.name)
      if is_main:
        _write(workdir, finished)
        known = [x for x in points if x.name in finished]
        _report(workdir, axes, known, finished, metric, mode)
    if is_main:
      print(_report(workdir, axes, points, finished, metric, mode))


def _workdir(axes: list[grid.Axis]) -> pathlib.Path:
  overrides = config_flags.get_override_values(FLAGS["config"])
  keys = {axis.key: "" for axis in axes}
  default = training.default_workdir(
    config_flags.get_config_filename(FLAGS["config"]), overrides | keys
  )
  default = default.with_name(f"sweep-{default.name}")
  workdir = places.of(FLAGS.workdir or default)
  return workdir if places.is_remote(workdir) else workdir.absolute()


def _resolve(base: Mapping, point: grid.Point) -> schema.RunConfig:
  try:
    return resolving.resolve(grid.config_of(base, point))
  except ValueError as e:
    raise ValueError(f"point {point.name}: {e}") from e


def _metric_and_mode(run: schema.RunConfig) -> tuple[str, str]:
  """The metric that chooses the best point, and its mode: "max" or "min"."""
  from vitjax import checks

  metric = FLAGS.metric or run.checkpoint.best_metric or ""
  known = checks.eval_names(run)
  name, slash, _ = metric.partition("/")
  if not slash or name not in known:
    raise ValueError(
      f"--metric={metric} must be EVAL/METRIC with EVAL one of "
      f"{', '.join(known) or '(there are none)'}, such as "
      f"--metric={next(iter(known), 'val')}/acc@1."
    )
  mode = FLAGS.mode or resolving.best_mode(metric)
  if metric == run.checkpoint.best_metric:
    mode = FLAGS.mode or run.checkpoint.best_mode
  if mode is None:
    raise ValueError(
      f"--metric={metric}: its name does not tell whether the largest or the "
      "smallest value is the best. Add --mode=max or --mode=min."
    )
  return metric, mode


def _train(run: schema.RunConfig, folder: pathlib.Path) -> str:
  """Trains a point to its end; returns why it has diverged, or ""."""
  import jax

  from vitjax import train

  try:
    train.train_and_evaluate(run, folder)
  except FloatingPointError as e:
    logging.warning("%s: %s", folder.name, e)
    return f"diverged: {str(e).partition(';')[0]}"
  finally:
    jax.clear_caches()  # the programs of this point
  return ""


def _read(workdir: pathlib.Path) -> dict[str, str]:
  """Name of each finished point -> why it has diverged, or ""."""
  from vitjax.run_folder import reader

  file = workdir / _STATE
  return dict(reader.read_json(file)["finished"]) if file.exists() else {}


def _write(workdir: pathlib.Path, finished: Mapping[str, str]) -> None:
  from vitjax.run_folder import files

  files.write_json(workdir / _STATE, {"finished": dict(finished)})


def _report(workdir, axes, points, finished, metric, mode) -> str:
  """Writes table and plot; returns the table, the best point, its command."""
  from vitjax.run_folder import files, history
  from vitjax.sweep import results

  outcomes = [
    results.outcome(
      point,
      history.read([workdir / point.name])[0],
      metric,
      finished[point.name],
    )
    for point in points
  ]
  winner = results.best(outcomes, mode)
  table = results.rows(axes, outcomes, metric, winner)
  files.write_text(workdir / "sweep.csv", results.to_csv(table))
  lines = [results.to_text(table), ""]
  try:
    png = results.plot(axes, outcomes, metric)
    (workdir / "sweep.png").write_bytes(png)
    lines.append(f"Table and plot: {workdir}/sweep.csv and sweep.png")
  except ImportError as e:
    lines.append(f"Table: {workdir}/sweep.csv. There is no plot: {e}")
  if winner is None:
    return "\n".join([*lines, f"No point has a finite {metric}."])
  lines.append(
    f"Best: {winner.point.name}, {metric} {winner.value:.6g}. Run folder: "
    f"{workdir / winner.point.name}"
  )
  equal = [x for x in outcomes if x.value == winner.value]
  if len(equal) > 1:
    lines.append(
      f"{len(equal)} points have this value, and the first of them is taken."
    )
  lines += results.edges(axes, winner)
  return "\n".join([*lines, "The same run:", f"  {_command(winner.point)}"])


def _command(point: grid.Point) -> str:
  """The command of `vitjax train` that gives the run of a point."""
  config = FLAGS["config"]
  given = config_flags.get_override_values(config)
  replaced = {key.rpartition("_")[0] for key in point.texts}
  kept = [
    f"--config.{key}={value}"
    for key, value in given.items()
    if key not in point.texts
    and not (
      key.rpartition("_")[2] in schema.UNITS
      and key.rpartition("_")[0] in replaced
    )
  ]
  name = config_flags.get_config_filename(config)
  words = [f"--config={name}", *kept, *point.overrides]
  return shlex.join(["vitjax", "train", *words])


if __name__ == "__main__":
  command_line.run(main, define_flags, flag.parse_flags)
