r"""Prints the memory, FLOPs and steps of a run without running it.

  python -m vitjax.plan --config=configs/vit_s16_i1k.py
  python -m vitjax.plan --config=configs/plain_vit.py:l16,batch=4096 \
    --topology=v5e:4x4

  python -m vitjax.plan --config=configs/plain_vit.py:b16,batch=256 \
    --topology=rtx4090:1
  python -m vitjax.plan --all_recipes --topology=a100:8

Without a topology, the plan is for the devices of this machine. By the shapes
of its arrays the step is compared with their memory; if it seems too large, it
is compiled to make sure. With a topology, the step is compiled for those TPUs
or GPUs, which need not be here. TPUs need libtpu: pip install "vitjax[tpu]".
GPUs need the plug-in for CUDA: pip install "vitjax[gpu]"; without it, the
memory is estimated from the operations of the step, and the plan says so.

If the step does not fit, changes of the config are tried, the smallest first,
until one fits, and a batch size that should fit is printed. No data is read.

Exit codes: 0 it fits or the memory is not known, 3 it does not fit, 1 an error.
"""

import json
import os
import sys

from absl import flags, logging

from vitjax.config import command_line, flag, resolving

FLAGS = flags.FLAGS

EXIT_DOES_NOT_FIT = 3

# So that libtpu looks for no TPU, here or in a cloud, before it compiles.
WITHOUT_TPU = {
  "JAX_PLATFORMS": "cpu",
  "TPU_SKIP_MDS_QUERY": "1",
  "TPU_WORKER_HOSTNAMES": "localhost",
}
# So that the compiler for GPUs does not try to time kernels.
WITHOUT_GPU = "--xla_gpu_autotune_level=0"


def define_flags() -> None:
  """Defines the flags of the command."""
  flag.define()
  flags.DEFINE_string(
    "topology",
    None,
    "TPU slice to compile for, in chips: v2:2x2, v3:2x2, v4:2x2x4, v5e:4x4, "
    "v5p:2x2x4, v6e:8x8, ...; or GPUs of one host: a100:8, a100-80gb:1, "
    "h100:1, h200:1, l4:1, rtx4090:1.",
  )
  flags.DEFINE_integer(
    "examples",
    None,
    "Examples of an epoch, if the data is not on this machine.",
    lower_bound=1,
  )
  flags.DEFINE_bool("all", False, "Try every change, also after one that fits.")
  flags.DEFINE_bool(
    "all_recipes", False, "Plan each shipped recipe; print one table."
  )
  flags.DEFINE_bool("json", False, "Print the plan as JSON.")


def main(argv: list[str]) -> None:
  """Prints the plan of the config."""
  del argv
  if FLAGS.topology is not None:
    os.environ.update(WITHOUT_TPU)
    os.environ.setdefault("XLA_FLAGS", WITHOUT_GPU)
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
  command_line.set_up_logging()
  if FLAGS.all_recipes:
    print_recipes()
    return
  try:
    config = flag.read()
    resolving.resolve(config)

    from vitjax import checks
    from vitjax.plan import planning, table

    run = resolving.resolve(config, checks.problems)
    plan = planning.make_plan(
      run,
      topology=FLAGS.topology,
      num_examples=FLAGS.examples,
      try_all=FLAGS.all,
      log=lambda line: logging.info("%s ...", line),
    )
  except (ValueError, OSError, RuntimeError, ImportError) as e:
    sys.exit(f"vitjax.plan: {type(e).__name__}: {e}")
  if FLAGS.json:
    print(json.dumps(table.to_json(plan), indent=2))
  else:
    print(table.to_table(plan))
  if plan.fits is False:
    sys.exit(EXIT_DOES_NOT_FIT)


def print_recipes() -> None:
  """Prints the table of all recipes."""
  from vitjax.plan import recipes

  def log(line):
    logging.info("%s ...", line)

  print(recipes.HEAD)
  for name, plan in recipes.plans(FLAGS.topology, log):
    print(recipes.row(name, plan), flush=True)


def parse_flags(argv: list[str]) -> list[str]:
  """Parses the command line, which needs a config unless for all recipes."""
  if any(x.lstrip("-") == "all_recipes" for x in argv):
    return command_line.parse_flags(argv)
  return flag.parse_flags(argv)


if __name__ == "__main__":
  command_line.run(main, define_flags, parse_flags)
