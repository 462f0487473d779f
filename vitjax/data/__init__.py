"""Input: sources of examples, preprocessing, batches, feeding devices.

The only package (next to `vitjax.metrics`) that imports TensorFlow, which is
used on the host alone: importing the package hides every accelerator from it.
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Without this every start prints lines about oneDNN, which no op here uses.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")


def hide_accelerators() -> None:
  """Keeps TensorFlow away from GPUs and TPUs, and starts it."""
  # Its last import is Keras, which takes as long as all before. Asked for the
  # older one, which is not installed, it goes on without; `tf.keras` is read
  # when it is used, and then finds the new one again.
  asked = os.environ.get("TF_USE_LEGACY_KERAS")
  os.environ["TF_USE_LEGACY_KERAS"] = "1"
  try:
    import tensorflow as tf
  finally:
    if asked is None:
      del os.environ["TF_USE_LEGACY_KERAS"]
    else:
      os.environ["TF_USE_LEGACY_KERAS"] = asked

  for kind in ("GPU", "TPU"):
    try:
      tf.config.set_visible_devices([], kind)
    except RuntimeError:  # It was started before: too late to hide them.
      if tf.config.list_logical_devices(kind):
        raise


# `python -m vitjax.data` does so once its flags are read: asked for help, it
# has no need of TensorFlow.
if sys.argv[0] != "-m":
  hide_accelerators()
