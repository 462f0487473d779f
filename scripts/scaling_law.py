r"""Fits held-out loss as a power law of training compute.

  python -m scripts.scaling_law runs/scaling/* --out=scaling

writes scaling.png, scaling.json and scaling.md. The form is that of
"ConvNets Match Vision Transformers at Scale", https://arxiv.org/abs/2310.16764:
for each family of models, a straight line through log(loss) against
log(compute).

Compute is counted, not timed: FLOPs of the loss and its gradient for one
example, as XLA counts them in the traced program (a multiplication and an
addition are two), times the examples that the run has seen. The optimizer and
the evaluations are not counted.

Of a run folder, config.json, model.json and metrics.jsonl are read. Drawing
needs the extra `plots`.
"""

import argparse
import dataclasses
import json
import pathlib
from collections.abc import Sequence

import numpy as np

from vitjax.run_folder import reader

# Losses are given at this compute: the constant of a power law of raw FLOPs
# is that of a run of one FLOP.
REFERENCE = 1e12


@dataclasses.dataclass(frozen=True)
class Run:
  """One run: how large, how long and how good."""

  family: str
  params: int
  examples: int
  flops: float
  loss: float


@dataclasses.dataclass(frozen=True)
class PowerLaw:
  """loss = scale * (flops / REFERENCE) ** -exponent."""

  scale: float
  exponent: float
  exponent_error: float  # standard error
  r2: float  # share of the variance of log(loss) that is explained

  def __call__(self, flops):
    return self.scale * (np.asarray(flops) / REFERENCE) ** -self.exponent


def fit(flops: Sequence[float], loss: Sequence[float]) -> PowerLaw:
  """Least squares through log(loss) against log(flops).

  There is no offset for a loss that cannot be undercut: over less than two
  decades of compute it cannot be told from a smaller exponent. The error takes
  the runs as independent.

  Raises:
    ValueError: if there are fewer than three runs, or only one compute.
  """
  if len(loss) < 3 or len(set(flops)) < 2:
    raise ValueError(
      f"{len(loss)} runs with {len(set(flops))} different amounts of compute "
      "do not determine a power law; give at least three runs of two sizes."
    )
  x = np.log(np.asarray(flops, np.float64) / REFERENCE)
  y = np.log(np.asarray(loss, np.float64))
  centred = x - x.mean()
  slope = (centred @ y) / (centred @ centred)
  residual = y - y.mean() - slope * centred
  variance = (residual @ residual) / (len(y) - 2)
  return PowerLaw(
    scale=float(np.exp(y.mean() - slope * x.mean())),
    exponent=float(-slope),
    exponent_error=float(np.sqrt(variance / (centred @ centred))),
    r2=float(1 - (residual @ residual) / np.square(y - y.mean()).sum()),
  )


def flops_per_example(model, image_shape: Sequence[int]) -> tuple[float, int]:
  """FLOPs of loss and gradient for one image, and the number of parameters.

  Args:
    model: obeys the contract of `vitjax.models`.
    image_shape: (h, w, c).
  """
  import jax
  import jax.numpy as jnp

  from vitjax import losses

  image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
  labels = jax.ShapeDtypeStruct((1, model.num_classes), jnp.float32)
  params = jax.eval_shape(model.init, jax.random.key(0), image)["params"]

  def loss_of(params, image, labels):
    logits, _ = model.apply({"params": params}, image, train=True)
    return losses.softmax_xent(logits, labels).mean()

  with jax.default_device("cpu"):  # XLA's plug-ins for GPUs do not count
    traced = jax.jit(jax.value_and_grad(loss_of)).lower(params, image, labels)
  num_params = sum(x.size for x in jax.tree.leaves(params))
  return traced.cost_analysis()["flops"], num_params


def read(folder: pathlib.Path, metric: str) -> Run:
  """What a run folder says.

  Raises:
    ValueError: if a file is missing, or the metric.
  """
  from vitjax import models

  try:
    config, about = (
      reader.read_json(folder / name) for name in ("config.json", "model.json")
    )
    rows = [row for row in reader.read_metrics(folder) if metric in row]
  except FileNotFoundError as e:
    raise ValueError(f"{folder} is not a run folder: {e}") from e
  if not rows:
    raise ValueError(f"{folder} has no {metric}.")
  options = about["model"]
  image_shape = (*about["image_size"], about["channels"])
  flops, params = flops_per_example(models.create(**options), image_shape)
  examples = rows[-1]["step"] * config["input"]["batch_size"]
  return Run(
    options["name"], params, examples, flops * examples, rows[-1][metric]
  )


def fit_families(runs: Sequence[Run]) -> dict[str, PowerLaw]:
  """Family -> its power law."""
  families = dict.fromkeys(run.family for run in runs)
  return {
    family: fit(
      [run.flops for run in runs if run.family == family],
      [run.loss for run in runs if run.family == family],
    )
    for family in families
  }


def table(runs: Sequence[Run], laws: dict[str, PowerLaw], metric: str) -> str:
  """Markdown: a row per size, and one per fit."""
  lines = [
    f"| family | parameters | images seen | FLOPs | {metric} |",
    "|---|--:|--:|--:|--:|",
  ]
  sizes: dict[tuple, list[float]] = {}
  for run in sorted(runs, key=lambda run: run.flops):
    key = (run.family, run.params, run.examples, run.flops)
    sizes.setdefault(key, []).append(run.loss)
  for family in laws:
    for key, found in sizes.items():
      if key[0] == family:
        spread = f" ± {np.std(found, ddof=1):.3f}" if len(found) > 1 else ""
        lines.append(
          f"| {family} | {key[1]:,} | {key[2]:,} | {key[3]:.1e} | "
          f"{np.mean(found):.3f}{spread} (n={len(found)}) |"
        )
  lines += [
    "",
    f"| family | loss at {REFERENCE:.0e} FLOPs | exponent | R² |",
    "|---|--:|--:|--:|",
  ]
  for family, law in laws.items():
    lines.append(
      f"| {family} | {law.scale:.3f} | {law.exponent:.3f} ± "
      f"{law.exponent_error:.3f} | {law.r2:.3f} |"
    )
  return "\n".join(lines)


def draw(
  runs: Sequence[Run],
  laws: dict[str, PowerLaw],
  metric: str,
  file: pathlib.Path,
) -> None:
  """The runs and the lines, on logarithmic axes."""
  import matplotlib

  matplotlib.use("agg")
  from matplotlib import pyplot, ticker

  figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
  for (family, law), marker in zip(laws.items(), "osD^v"):
    flops = np.array([run.flops for run in runs if run.family == family])
    loss = [run.loss for run in runs if run.family == family]
    dots = axes.plot(flops, loss, marker, alpha=0.7, markersize=6)
    ends = np.array([flops.min() / 1.3, flops.max() * 1.3])
    label = f"{family}: exponent {law.exponent:.3f} ± {law.exponent_error:.3f}"
    colour = dots[0].get_color()
    axes.plot(ends, law(ends), color=colour, marker=marker, label=label)
    axes.lines[-1].set_marker("")
  axes.set(xscale="log", yscale="log", xlabel="training FLOPs")
  axes.set_ylabel(metric.replace("/", " "))
  axes.yaxis.set_major_formatter(ticker.FormatStrFormatter("%.2f"))
  axes.yaxis.set_minor_formatter(ticker.FormatStrFormatter("%.2f"))
  axes.grid(True, which="both", alpha=0.25)
  axes.legend()
  figure.savefig(file, dpi=110)
  pyplot.close(figure)


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("folders", nargs="+", type=pathlib.Path, metavar="FOLDER")
  parser.add_argument("--metric", default="test/loss")
  parser.add_argument("--out", default="scaling", help="files without suffix")
  args = parser.parse_args()
  runs = [read(folder, args.metric) for folder in args.folders]
  laws = fit_families(runs)
  text = table(runs, laws, args.metric)
  content = {
    "metric": args.metric,
    "runs": [dataclasses.asdict(run) for run in runs],
    "laws": {name: dataclasses.asdict(law) for name, law in laws.items()},
  }
  out = pathlib.Path(args.out)
  out.with_name(f"{out.name}.json").write_text(json.dumps(content, indent=2))
  out.with_name(f"{out.name}.md").write_text(text + "\n", encoding="utf-8")
  draw(runs, laws, args.metric, out.with_name(f"{out.name}.png"))
  print(text)


if __name__ == "__main__":
  main()
