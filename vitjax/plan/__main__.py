r"""Says what a run needs, without running it.

  python -m vitjax.plan --config=configs/vit_s16_i1k.py
  python -m vitjax.plan --config=configs/plain_vit.py:l16,batch=4096 \
    --topology=v5e:4x4

Without a topology: bytes, FLOPs and steps of a run on the devices that are
here. With one, the train step is compiled for that TPU slice, of which nothing
has to be there but libtpu: pip install "vitjax[tpu]". If the step does not fit,
changes of the config are tried, the smallest first, until one does. No data is
read.

Exit codes: 0 it fits or nothing was compiled, 3 it does not fit, 1 an error.
"""

import json
import logging as std_logging
import os
import pathlib
import sys

from absl import flags, logging

from vitjax.config import command_line, flag, schema

FLAGS = flags.FLAGS

EXIT_DOES_NOT_FIT = 3

# So that libtpu looks for no TPU, here or in a cloud, before it compiles.
WITHOUT_TPU = {
  "JAX_PLATFORMS": "cpu",
  "TPU_SKIP_MDS_QUERY": "1",
  "TPU_WORKER_HOSTNAMES": "localhost",
}


def define_flags() -> None:
  """Defines the flags of the command."""
  flag.define()
  flags.DEFINE_string(
    "topology",
    None,
    "TPU slice to compile for, in chips: v2:2x2, v3:2x2, v4:2x2x4, v5e:4x4, "
    "v5p:2x2x4, v6e:8x8, ...",
  )
  flags.DEFINE_integer(
    "examples",
    None,
    "Examples of an epoch, where the data are not here to be asked.",
    lower_bound=1,
  )
  flags.DEFINE_bool("all", False, "Try every change, also after one that fits.")
  flags.DEFINE_bool("json", False, "Print the plan as JSON.")


def main(argv: list[str]) -> None:
  """Prints the plan of the config."""
  del argv
  if FLAGS.topology is not None:
    os.environ.update(WITHOUT_TPU)
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
  logging.set_verbosity(logging.INFO)
  handler = logging.get_absl_handler()
  handler.setFormatter(std_logging.Formatter("%(message)s"))
  package = str(
    pathlib.Path(__file__).parents[1]
  )  # not those of JAX's backends
  handler.addFilter(lambda record: record.pathname.startswith(package))
  try:
    config = flag.read()
    schema.resolve(config)

    from vitjax import checks
    from vitjax.plan import planning

    run = schema.resolve(config, checks.problems)
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
    print(json.dumps(planning.to_json(plan), indent=2))
  else:
    print(planning.to_table(plan))
  if plan.compiled and not plan.compiled.fits:
    sys.exit(EXIT_DOES_NOT_FIT)


if __name__ == "__main__":
  command_line.run(main, define_flags, flag.parse_flags)
