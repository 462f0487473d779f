"""The tracker "tensorboard": event files in `tensorboard/`."""

import contextlib
import pathlib
from collections.abc import Mapping


class Tracker:
  """Writes TensorBoard's files."""

  def __init__(self, folder: pathlib.Path, start_step: int):
    del start_step  # each process has a file of its own
    # TensorFlow takes seconds to import and is needed for nothing else.
    import tensorflow as tf

    with contextlib.suppress(RuntimeError):  # TensorFlow already runs
      tf.config.set_visible_devices([], "GPU")  # it would take its memory
    self._scalar = tf.summary.scalar
    self._writer = tf.summary.create_file_writer(str(folder / "tensorboard"))

  def write(self, step: int, values: Mapping[str, int | float]) -> None:
    with self._writer.as_default():
      for name, value in values.items():
        self._scalar(name, float(value), step=step)

  def flush(self) -> None:
    self._writer.flush()

  def close(self) -> None:
    self._writer.close()
