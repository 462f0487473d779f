r"""What features without training give on Fashion-MNIST, for docs/ssl.md.

  python -m scripts.ssl_baselines [SEED ...]

prints the accuracy of 20 nearest neighbours and of a linear probe on the raw
pixels, and on the encoder of `configs/ssl.py:fashion` with random parameters,
one for each seed (by default 0, 1 and 2). The evaluators are those of the
recipe.
"""

import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp

from configs import ssl
from vitjax import models, step
from vitjax.config import resolving, schema
from vitjax.data import sources
from vitjax.data.pp import builder
from vitjax.evaluators import base, find
from vitjax.parallel import sharding


def evaluate(run: schema.RunConfig, predict: Callable, params) -> str:
  """Accuracies by the evals of the recipe, as cells of a row."""
  cells = []
  for section in run.evals.values():

    def open_split(split):
      return sources.open_source("fashion_mnist", split, cache=True)

    data = base.EvalData(
      open_split(section.split),
      builder.build(section.pp),
      500,
      sharding.make_mesh(**vars(run.mesh)),
      open_split,
    )
    evaluator = find(section.type)(predict, data, **section.options)
    _, accuracy = next(iter(evaluator.run(params)))
    cells.append(f"{100 * accuracy:.2f}")
  return " | ".join(cells)


def main() -> None:
  run = resolving.resolve(ssl.get_config("fashion"))
  normalise = builder.build(run.input.pp).on_device

  def pixels(params, batch):
    del params
    image = normalise(batch)["image"]
    return None, {"pre_logits": image.reshape(len(image), -1)}

  print("| features | 20-NN, % | linear probe, % |\n|---|--:|--:|")
  print(f"| pixels | {evaluate(run, pixels, {})} |", flush=True)
  name, options = schema.split_name(run.model)
  model = models.create(name, **options)
  image = jnp.zeros((1, 28, 28, 1))
  for seed in map(int, sys.argv[1:] or (0, 1, 2)):
    params = jax.jit(model.init)(jax.random.key(seed), image)["params"]
    predict = step.make_predict_fn(model, normalise)
    cells = evaluate(run, predict, params)
    print(f"| random encoder, seed {seed} | {cells} |", flush=True)


if __name__ == "__main__":
  main()
