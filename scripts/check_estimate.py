"""Compares the estimate of `vitjax.plan` with the compiler and the process.

python -m scripts.check_estimate
python -m scripts.check_estimate ConvNeXt-T

Of five models, or of those that are named, on the CPU: the state, batch and
temporaries of a train step as `vitjax.plan.liveness` estimates them, as the
compiler reports them, and the largest memory of a process that runs steps, less
what it had before. Exit code 1 if an estimate is more than 15 % off the
compiler's figure.
"""

import re
import subprocess
import sys

import jax

from scripts.bench import network, recipe

# Name -> (model, options, image size, batch).
MODELS = {
  "ViT-S/16": ("vit", {"variant": "S/16"}, 224, 8),
  "Mixer-S/16": ("mixer", {"variant": "S/16"}, 224, 8),
  "ResNet-50": ("resnet", {"variant": "R50x1"}, 224, 8),
  "ConvNeXt-T": ("convnext", {"variant": "T"}, 224, 8),
  "EfficientNet-B0": ("efficientnet", {"variant": "b0"}, 224, 8),
}
TOLERANCE = 0.15


def estimate(name: str) -> tuple[int, jax.stages.Traced]:
  """The estimated bytes of a step, and the step."""
  from vitjax.plan import liveness

  model, options, size, batch = MODELS[name]
  made = network.make(model, network.ADAM, image_size=size, **options)
  state = jax.eval_shape(made.init, jax.random.key(0))
  example = recipe.example_batch(batch, size)
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), example
  )
  traced = made.train.trace(state, shapes)
  arrays = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
  arrays += sum(x.nbytes for x in example.values())
  params = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state.params))
  return arrays + liveness.temporary_bytes(traced.jaxpr, params, "cpu"), traced


def compiled(traced: jax.stages.Traced) -> int:
  """The compiler's figure of the same."""
  from vitjax.parallel import memory

  used = memory.used_bytes(traced.lower().compile())
  assert used is not None
  return used


def measured(name: str) -> int:
  """Bytes that three steps add to the peak of a process of their own."""
  done = subprocess.run(
    [sys.executable, "-m", "scripts.check_estimate", "--process", name],
    check=True,
    capture_output=True,
    text=True,
  )
  return int(done.stdout)


def _resident(field: str) -> int:
  with open("/proc/self/status") as file:
    found = re.search(rf"{field}:\s+(\d+) kB", file.read())
  return int(found[1]) * 1024


def _run(name: str) -> None:
  """Prints what `measured` reads."""
  model, options, size, batch = MODELS[name]
  made = network.make(model, network.ADAM, image_size=size, **options)
  state = jax.eval_shape(made.init, jax.random.key(0))
  example = recipe.example_batch(batch, size)
  step = made.train.lower(state, example).compile()
  init = made.init.lower(jax.random.key(0)).compile()
  before = _resident("VmRSS")
  with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the peak counts from here
  state = init(jax.random.key(0))
  example = jax.device_put(example)
  for _ in range(3):
    state, metrics = step(state, example)
  jax.block_until_ready(metrics)
  print(_resident("VmHWM") - before)


def main() -> None:
  names = sys.argv[1:] or list(MODELS)
  if names[0] == "--process":
    _run(names[1])
    return
  print("| model | estimate | compiler | ratio | process |")
  print("|---|---|---|---|---|")
  worst = 0.0
  for name in names:
    guess, traced = estimate(name)
    used = compiled(traced)
    worst = max(worst, abs(guess / used - 1))
    print(
      f"| {name} | {guess / 2**20:,.0f} MiB | {used / 2**20:,.0f} MiB | "
      f"{guess / used:.3f} | {measured(name) / 2**20:,.0f} MiB |",
      flush=True,
    )
  sys.exit(worst > TOLERANCE)


if __name__ == "__main__":
  main()
