r"""Answers about images over HTTP, for other programs.

  python -m vitjax.serve --model=runs/mine
  curl --data-binary @photo.jpg http://127.0.0.1:8000/predict/image?top=3

POST /predict/image takes an image file as the body, POST /predict a JSON object
{"image": "<base64>", "top": 3}. The answers are those of vitjax.predict --json.
GET /health/live and /health/ready are for probes, GET /metrics for Prometheus.
A model that reads texts (LiT, SigLIP) chooses between the captions of --texts.

Images that arrive while the model runs go through it together. SIGTERM and
Ctrl-C end the server: it accepts nothing more, answers what it has received,
and exits with code 0. Only this machine reaches the server; --host=0.0.0.0
admits everyone who can reach this machine, without a password. See
docs/serve.md.
"""

import os
import socket
import sys

from absl import flags, logging

from vitjax.config import command_line, extras

FLAGS = flags.FLAGS


def define_flags() -> None:
  """Defines the flags of the command."""
  command_line.define_answers()
  command_line.define_server(8000, "Port to listen on; 0: any free one.")
  flags.DEFINE_integer(
    "max_batch", 16, "Images that go through the model at once.", lower_bound=1
  )
  flags.DEFINE_float(
    "max_wait_ms",
    5,
    "Milliseconds that an image waits for others while the model is idle.",
    lower_bound=0,
  )
  flags.DEFINE_integer(
    "max_queue",
    128,
    "Images that are received, decoded, waiting or in the model at once; more "
    "are refused with status 503.",
    lower_bound=1,
  )


def bind(host: str, port: int) -> socket.socket:
  """A socket with this address, on which nothing listens yet.

  Raises:
    OSError: if the address cannot be used; in one line.
  """
  family = socket.AF_INET6 if ":" in host else socket.AF_INET
  bound = socket.socket(family)
  try:
    if os.name == "posix":
      bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((host, port))
    return bound
  except OSError as e:
    bound.close()
    raise OSError(
      f"cannot listen on {host}, port {port}: {e.strerror}. Give another "
      "--port, or --port=0 for any free one."
    ) from None


def serve() -> None:
  """Serves as the flags say, until a signal ends it."""
  with extras.needed("serve", "servers"):  # before a model is loaded
    import uvicorn

  import vitjax
  from vitjax.data import limits
  from vitjax.serve.answers import Model
  from vitjax.serve.app import Service

  texts = command_line.captions(FLAGS.texts) if FLAGS.texts else []
  with bind(FLAGS.host, FLAGS.port) as bound:
    model = Model(
      vitjax.load(
        FLAGS.model,
        step=FLAGS.step,
        ema=FLAGS.ema,
        pretrained_dir=FLAGS.pretrained_dir,
        allow_module=FLAGS.allow_module,
      ),
      limits=limits.Limits(
        max_bytes=int(FLAGS.max_mb * 1e6),
        max_pixels=int(FLAGS.max_megapixels * 1e6),
        kinds=(*limits.KINDS, "TIFF"),
      ),
      texts=texts,
      resize=FLAGS.resize,
    )
    failures = []

    def end(error: BaseException) -> None:
      failures.append(error)
      server.should_exit = True

    service = Service(
      model,
      top=FLAGS.top,
      max_batch=FLAGS.max_batch,
      max_wait=FLAGS.max_wait_ms / 1000,
      max_queue=FLAGS.max_queue,
      on_failure=end,
    )
    config = uvicorn.Config(
      service.app, log_config=None, access_log=False, server_header=False
    )
    server = uvicorn.Server(config)
    host, port = bound.getsockname()[:2]
    logging.info(
      "Serving %s at http://%s:%d; Ctrl-C ends it. Compiling for batches of "
      "%s ...",
      FLAGS.model,
      f"[{host}]" if ":" in host else host,
      port,
      ", ".join(map(str, service.batcher.sizes)),
    )
    server.run(sockets=[bound])
    if failures:
      raise failures[0]


def main(argv: list[str]) -> None:
  """Serves, and reports errors in one line."""
  if len(argv) > 1:
    sys.exit(f"vitjax.serve: {argv[1]!r} is not a flag.")
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
  os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
  command_line.end_on_signals()
  try:
    serve()
  except KeyboardInterrupt:
    return
  except (ValueError, OSError, RuntimeError, ImportError) as e:
    sys.exit(f"vitjax.serve: {e}")


if __name__ == "__main__":
  command_line.set_up_logging()
  command_line.run(main, define_flags)
