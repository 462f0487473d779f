r"""Serves a local page to try a model with your own images.

  python -m vitjax.demo --model=runs/quickstart
  python -m vitjax.demo --model=vit_small_patch16_224.augreg_in21k_ft_in1k
  python -m vitjax.demo --static=site

Drop an image on the page: it shows the most probable classes and the attention
over the image. A model with two towers (LiT, SigLIP) compares the image with
texts that you type. Only this machine reaches the page; --host=0.0.0.0 admits
everyone who can reach this machine, without a password. Uploads stay on this
machine and are deleted when the server ends. Ctrl-C ends it.

--static serves a folder that vitjax.export --format=web wrote, for a look at
it: there the model runs in the browser.
"""

import logging as std_logging
import pathlib
import sys
import threading

from absl import flags, logging

from vitjax.config import command_line, extras

FLAGS = flags.FLAGS


def define_flags() -> None:
  """Defines the flags of the command."""
  flags.DEFINE_string(
    "model",
    None,
    "Run folder, exported file, hf:OWNER/REPO or published name.",
  )
  flags.DEFINE_string(
    "static", None, "Folder with a web page to serve, instead of a model."
  )
  command_line.define_checkpoint()
  command_line.define_allow_module()
  command_line.define_server(
    None, "Port to listen on; default: the first free one from 7860."
  )
  flags.DEFINE_integer("top", 5, "Number of classes to show.", lower_bound=1)


def main(argv: list[str]) -> None:
  """Serves until it is interrupted."""
  if len(argv) > 1:
    sys.exit(f"vitjax.demo: {argv[1]!r} is not a flag.")
  if (FLAGS.model is None) == (FLAGS.static is None):
    sys.exit(
      "vitjax.demo: name either a model or a page, such as "
      "--model=runs/quickstart or --static=site."
    )
  command_line.end_on_signals()
  try:
    if FLAGS.static is not None:
      _serve_static()
    std_logging.getLogger("httpx").setLevel(std_logging.WARNING)
    with extras.needed("demo", "demos"):  # before a model is loaded
      import gradio  # noqa: F401

    import vitjax
    from vitjax.data import limits
    from vitjax.demo import page

    model = page.Model(
      vitjax.load(
        FLAGS.model,
        step=FLAGS.step,
        ema=FLAGS.ema,
        allow_module=FLAGS.allow_module,
      ),
      limits=limits.Limits(
        max_bytes=int(FLAGS.max_mb * 1e6),
        max_pixels=int(FLAGS.max_megapixels * 1e6),
      ),
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


def _serve_static() -> None:
  """Serves a page until it is interrupted."""
  from vitjax.demo import static

  folder = pathlib.Path(FLAGS.static)
  with static.serve(folder, host=FLAGS.host, port=FLAGS.port) as address:
    logging.info("Serving %s at %s; Ctrl-C ends it.", folder, address)
    threading.Event().wait()


if __name__ == "__main__":
  command_line.set_up_logging()
  command_line.run(main, define_flags)
