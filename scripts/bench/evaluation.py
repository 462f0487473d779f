"""Evaluation of 10,000 images against the bare forward pass on ready batches.

The model of configs/fashion_mnist.py and images of its size, so what is
measured is what evaluation adds: decoding, padding, masks, sums, the feed.
"""

import jax
import numpy as np

from configs import fashion_mnist
from scripts.bench import turns

IMAGES = 10_000


def measure(repetitions: int) -> list[dict]:
  """Rows: images per second, and as a share of the forward pass's."""
  from vitjax import checks, program, weights
  from vitjax import step as step_lib
  from vitjax.config import resolving
  from vitjax.data import sources
  from vitjax.data.pp import builder
  from vitjax.evaluators import subject as subject_lib
  from vitjax.parallel import sharding

  c = fashion_mnist.get_config()
  c.input.data = f"fake:{IMAGES},28x28x1,10"
  section = c.evals.test
  section.split = "train"
  run = resolving.resolve(c, checks.problems)
  mesh = sharding.make_mesh(**vars(run.mesh))
  source = sources.open_source(run.input.data, "train")
  preprocess = builder.build(section.pp)
  model = program.create_model(run.model, 10, jax.default_backend())
  params = weights.initial(
    model, image_size=(28, 28), channels=1, key=jax.random.key(0)
  )
  predict = step_lib.make_predict_fn(model, preprocess.on_device, ("image",))
  subject = subject_lib.of_run(run, source, 10, preprocess)
  evaluator = subject_lib.make_evaluator(
    "test", run.evals["test"], subject, predict, mesh
  )
  size = run.evals["test"].batch_size
  images = np.random.default_rng(0).integers(
    256, size=(IMAGES // size, size, 28, 28, 1), dtype="uint8"
  )
  ready = [{"image": jax.device_put(x)} for x in images]
  forward = jax.jit(lambda params, batch: predict(params, batch)[0])
  found = turns.seconds(
    {
      "evaluation": lambda: dict(evaluator.run(params)),
      "forward": lambda: [
        x.block_until_ready() for x in [forward(params, b) for b in ready]
      ],
    },
    repetitions,
  )
  return [
    {
      "benchmark": "evaluation",
      "contestant": name,
      "images_per_second": turns.summary(IMAGES / np.array(seconds)),
      "times_forward": turns.ratios(found, name, "forward"),
    }
    for name, seconds in found.items()
  ]
