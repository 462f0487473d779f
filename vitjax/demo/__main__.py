r"""Serves a page to try a model with images of your own.

  python -m vitjax.demo --model=runs/quickstart
  python -m vitjax.demo --model=vit_small_patch16_224.augreg_in21k_ft_in1k

Drop an image on the page: it shows the most probable classes and where the
attention went. A model with two towers (LiT, SigLIP) compares it with the
texts that you type. Only this machine reaches the page unless --host says
otherwise; there is no password, so think before you open it to others. No
image leaves the machine or is kept. Ctrl-C ends it.
"""

import logging as std_logging
import sys
import threading

from absl import flags, logging

from vitjax.config import command_line, extras

FLAGS = flags.FLAGS


def define_flags() -> None:
  """Defines the flags of the command."""
  flags.DEFINE_string(
    "model", None, "Run folder, exported file or published name.", required=True
  )
  command_line.define_checkpoint()
  command_line.define_allow_module()
  flags.DEFINE_string(
    "host", "127.0.0.1", "Address to listen at; 0.0.0.0 lets others in."
  )
  flags.DEFINE_integer(
    "port",
    None,
    "Port to listen at; default: the first free one from 7860.",
    lower_bound=1,
    upper_bound=65535,
  )
  flags.DEFINE_integer("top", 5, "How many classes to show.", lower_bound=1)
  flags.DEFINE_float(
    "max_mb", 10, "Largest file that is read, in MB.", lower_bound=0.001
  )
  flags.DEFINE_float(
    "max_megapixels",
    50,
    "Largest image that is decoded, in million pixels.",
    lower_bound=0.0001,
  )


def main(argv: list[str]) -> None:
  """Serves until it is interrupted."""
  if len(argv) > 1:
    sys.exit(f"vitjax.demo: {argv[1]!r} is not a flag.")
  try:
    std_logging.getLogger("httpx").setLevel(std_logging.WARNING)
    with extras.needed("demo", "demos"):  # before a model is loaded
      import gradio  # noqa: F401

    import vitjax
    from vitjax.demo import page

    model = page.Model(
      vitjax.load(
        FLAGS.model,
        step=FLAGS.step,
        ema=FLAGS.ema,
        allow_module=FLAGS.allow_module,
      ),
      max_bytes=int(FLAGS.max_mb * 1e6),
      max_pixels=int(FLAGS.max_megapixels * 1e6),
    )
    logging.info("Compiling ...")
    model.warm_up()
    with page.serve(
      model, FLAGS.model, host=FLAGS.host, port=FLAGS.port, top=FLAGS.top
    ) as address:
      logging.info("Serving %s at %s; Ctrl-C ends it.", FLAGS.model, address)
      threading.Event().wait()
  except KeyboardInterrupt:
    return
  except (ValueError, OSError, RuntimeError, ImportError) as e:
    sys.exit(f"vitjax.demo: {e}")


if __name__ == "__main__":
  command_line.set_up_logging()
  command_line.run(main, define_flags)
