"""Input: sources of examples, preprocessing, batches, feeding devices.

The only package (next to `vitjax.metrics`) that imports TensorFlow, which is
used on the host alone: importing the package hides every accelerator from it.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Without this every start prints lines about oneDNN, which no op here uses.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import tensorflow as tf

for _kind in ("GPU", "TPU"):
  try:
    tf.config.set_visible_devices([], _kind)
  except RuntimeError:  # TensorFlow was started before: too late to hide them.
    if tf.config.list_logical_devices(_kind):
      raise
