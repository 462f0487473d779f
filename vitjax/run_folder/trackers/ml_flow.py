"""The tracker "mlflow": a run in an MLflow store."""

import pathlib
import re
import time
from collections.abc import Mapping

from absl import logging

from vitjax.config import extras, plain
from vitjax.run_folder import files, reader

FILE = "mlflow.json"
_MOST_PARAMS = 100  # in one request
_MOST_METRICS = 1000
_MOST_CHARACTERS = 500  # of a parameter's value


class Tracker:
  """A run in an MLflow store.

  Its id is in `mlflow.json`, and a resumed run continues it. What the store
  has already is not sent again. MLflow's names have neither "@" nor brackets:
  val/acc@1 is val/acc_1 there, and val/recall[cat] is val/recall/cat.

  Args:
    folder: the run folder.
    start_step: 0 begins a new run in MLflow.
    uri: the store, such as "sqlite:////home/me/mlflow.db" or the address of a
      server. None: what MLFLOW_TRACKING_URI says, or MLflow's default.
    experiment: the experiment that it belongs to; made if absent.
    name: its name. None: that of the run folder.
    tags: more tags, such as {"team": "vision"}.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    start_step: int,
    uri: str | None = None,
    experiment: str = "vitjax",
    name: str | None = None,
    tags: Mapping[str, str] | None = None,
  ):
    with extras.needed("mlflow", "runs in MLflow"):
      from mlflow import MlflowClient
      from mlflow.entities import Metric, Param

    self._metric, self._param = Metric, Param
    self._client = MlflowClient(uri)
    self._last: dict[str, int] = {}  # last step of each metric in the store
    file = folder / FILE
    if start_step and file.exists():
      self._id = reader.read_json(file)["id"]
      self._client.update_run(self._id, status="RUNNING")
    else:
      self._id = self._create(folder, experiment, name, tags or {})
      files.write_json(file, {"id": self._id, "uri": self._client.tracking_uri})
    logging.info("MLflow: run %s in %s", self._id, self._client.tracking_uri)

  def _create(
    self,
    folder: pathlib.Path,
    experiment: str,
    name: str | None,
    tags: Mapping[str, str],
  ) -> str:
    found = self._client.get_experiment_by_name(experiment)
    number = (
      self._client.create_experiment(experiment)
      if found is None
      else found.experiment_id
    )
    environment = reader.read_json(folder / files.ENVIRONMENT)
    versions = {
      f"version.{package}": version
      for package, version in environment["versions"].items()
    }
    revision = environment["git_revision"] or "unknown"
    run = self._client.create_run(
      number,
      run_name=name or folder.name,
      tags={**versions, "git_revision": revision, **tags},
    )
    config = plain.flatten(reader.read_config(folder / files.CONFIG))
    params = [
      self._param(_allowed(key), str(value)[:_MOST_CHARACTERS])
      for key, value in config.items()
    ]
    for i in range(0, len(params), _MOST_PARAMS):
      self._client.log_batch(run.info.run_id, params=params[i:][:_MOST_PARAMS])
    return run.info.run_id

  def write(self, step: int, values: Mapping[str, int | float]) -> None:
    now = int(time.time() * 1000)
    metrics = [
      self._metric(name, float(value), now, step)
      for name, value in zip(map(_allowed, values), values.values())
      if step > self._last_step(name)
    ]
    for i in range(0, len(metrics), _MOST_METRICS):
      self._client.log_batch(self._id, metrics=metrics[i:][:_MOST_METRICS])

  def _last_step(self, name: str) -> int:
    """The last step of a metric that an earlier process has sent; or -1."""
    if name not in self._last:
      history = self._client.get_metric_history(self._id, name)
      self._last[name] = max((point.step for point in history), default=-1)
    return self._last[name]

  def flush(self) -> None:
    """Does nothing: each row is in the store when `write` returns."""

  def close(self) -> None:
    self._client.set_terminated(self._id)


def _allowed(name: str) -> str:
  """A name that MLflow takes, the same for the same metric."""
  name = re.sub(r"\[(.*)\]", r"/\1", name.replace("@", "_"))
  return re.sub(r"[^\w\-. :/]", lambda x: f"_x{ord(x[0]):x}_", name)
