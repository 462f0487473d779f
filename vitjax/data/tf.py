"""TensorFlow on the host alone: every accelerator is hidden from it.

The only file that imports it; others write `from vitjax.data.tf import tf`.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Hides lines about oneDNN at every start; no op here uses it.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")


def _import_without_keras():
  """Imports TensorFlow without Keras, which takes as long as all the rest.

  TensorFlow is asked for the older Keras, which is not installed, and imports
  none. `tf.keras` is imported when it is used, and then is the new one again.
  """
  asked = os.environ.get("TF_USE_LEGACY_KERAS")
  os.environ["TF_USE_LEGACY_KERAS"] = "1"
  try:
    import tensorflow
  finally:
    if asked is None:
      del os.environ["TF_USE_LEGACY_KERAS"]
    else:
      os.environ["TF_USE_LEGACY_KERAS"] = asked
  return tensorflow


tf = _import_without_keras()

for _kind in ("GPU", "TPU"):
  try:
    tf.config.set_visible_devices([], _kind)
  except RuntimeError:  # It was started before: too late to hide them.
    if tf.config.list_logical_devices(_kind):
      raise
