"""One saved step on disk: its content, and whether it is intact.

Owns: the record of a step (names, shapes, dtypes and checksums of its leaves,
metrics, what the caller adds), the form in which a pytree is stored, reading it
back, and a one-line reason if that fails. `checkpointer` decides which steps
are written, kept and restored.

A step is a directory with one Orbax item per entry of the state, each a
nested dict by leaf name, and the JSON item `info`, which is the record.
"""

import json
import math
import os
import re
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

import vitjax
from vitjax import trees
from vitjax.checkpoint import checksums, staging
from vitjax.config import messages, places

PyTree = Any

INFO = "info"
_BARE_LEAF = "value"  # the name of the leaf of an item that is a bare array


class CheckpointError(RuntimeError):
  """A checkpoint cannot be used; the message says which, why and what next."""


class MismatchError(CheckpointError):
  """The checkpoint is intact, but of another model, step or version."""


def read_record(directory: str | os.PathLike, step: int) -> dict[str, Any]:
  """Returns what is known about a step without reading any array.

  Keys: step, vitjax (the version), items (`{item: {leaf: {shape, dtype,
  checksum}}}`), metrics, best (`{metric, mode}`), info (the caller's).

  Raises:
    CheckpointError: if it is missing, unreadable or altered.
    MismatchError: if it is of another step, or of a newer vitjax.
  """
  path = absolute(directory) / str(step) / INFO / "metadata"
  try:
    record = json.loads(path.read_text())
    if _seal(record)["crc32"] != record["crc32"]:
      raise ValueError("its contents do not match their CRC-32")
  except Exception as error:
    raise CheckpointError(f"{path} is damaged: {reason(error)}") from error
  if record["format"] > 1:
    raise MismatchError(
      f"{path} was written by vitjax {record['vitjax']}, which this version "
      f"({vitjax.__version__}) cannot read; install that one."
    )
  if record["step"] != step:
    raise MismatchError(
      f"{path.parent.parent} holds the checkpoint of step {record['step']}: "
      f"the folder was renamed. Rename it back to {record['step']}, or move "
      f"it out of {absolute(directory)}."
    )
  metrics = record["metrics"].items()
  return record | {"metrics": {name: float(x) for name, x in metrics}}


def check_state(state: Mapping[str, PyTree]) -> None:
  """Raises if restoring this state could not give the same state back."""
  if INFO in state:
    raise ValueError(f"an item of the state cannot be called {INFO!r}.")
  for name, leaf in trees.flatten(dict(state)).items():
    if not isinstance(leaf, jax.Array | np.ndarray):
      raise TypeError(
        f"state leaf {name} is a {type(leaf).__name__}; a state holds arrays "
        "only: wrap a number in jnp.asarray, or put it in info."
      )
    restored = jax.dtypes.canonicalize_dtype(
      leaf.dtype, allow_extended_dtype=True
    )
    if restored != leaf.dtype:
      raise TypeError(
        f"state leaf {name} is {leaf.dtype}, which JAX would restore as "
        f"{restored}; convert it first."
      )


def _describe(state: Mapping[str, PyTree]) -> dict[str, dict[str, Any]]:
  # One call for all items: what it compiles then serves `restore_step` too.
  sums = checksums.of_tree(dict(state))
  return {
    item: {
      name: {
        "shape": list(leaf.shape),
        "dtype": str(leaf.dtype),
        "checksum": f"{sums[_full_name(item, name)]:016x}",
      }
      for name, leaf in trees.flatten(tree).items()
    }
    for item, tree in state.items()
  }


def _full_name(item: str, name: str) -> str:
  return f"{item}/{name}" if name else item


def _dtype(leaf: Mapping[str, Any]) -> np.dtype:
  return jnp.dtype(leaf["dtype"])


def to_store(state: Mapping[str, PyTree]) -> dict[str, dict[str, Any]]:
  """Returns the nested dict of each item that goes to disk.

  Without empty arrays, which Orbax cannot write, and items that hold nothing
  else; by names, so that they can be read without the optimizer's classes.
  """
  stored = {}
  for item, tree in state.items():
    flat = {
      n or _BARE_LEAF: x for n, x in trees.flatten(tree).items() if x.size
    }
    if flat:
      stored[item] = trees.unflatten(flat)
  return stored


def make_record(
  step: int,
  state: Mapping[str, PyTree],
  metrics: Mapping[str, Any],
  best: Mapping[str, Any],
  info: Mapping[str, Any],
) -> dict[str, Any]:
  """Returns the record of a state, see `read_record`; takes its checksums."""
  return _seal(
    {
      "format": 1,
      "step": int(step),
      "vitjax": vitjax.__version__,
      "items": _describe(state),
      "metrics": _json_floats(metrics),
      "best": dict(best),
      "info": _json_value(dict(info)),
    }
  )


def _seal(record: dict[str, Any]) -> dict[str, Any]:
  body = {key: value for key, value in record.items() if key != "crc32"}
  text = json.dumps(body, sort_keys=True)
  return body | {"crc32": zlib.crc32(text.encode())}


def _json_floats(metrics: Mapping[str, Any]) -> dict[str, float | str]:
  # JSON has no NaN and no infinity: they are strings that float() reads.
  values = {name: float(value) for name, value in metrics.items()}
  return {n: x if math.isfinite(x) else str(x) for n, x in values.items()}


def _json_value(info: dict[str, Any]) -> dict[str, Any]:
  try:
    return json.loads(json.dumps(info, allow_nan=False))
  except (TypeError, ValueError) as error:
    raise TypeError(f"info cannot be written as JSON: {error}") from error


def restore_step(
  directory: epath.Path, step: int, abstract_state: Mapping[str, PyTree]
) -> tuple[dict[str, PyTree], dict[str, Any]]:
  """Returns (state, info) of one step, on the shardings asked for.

  Raises:
    MismatchError: if names, shapes or dtypes differ.
    Exception: any other means that the step is damaged.
  """
  record = read_record(directory, step)
  saved = {
    _full_name(item, name): jax.ShapeDtypeStruct(leaf["shape"], _dtype(leaf))
    for item, leaves in record["items"].items()
    for name, leaf in leaves.items()
  }
  if difference := trees.compare(dict(abstract_state), saved):
    raise MismatchError(
      f"the checkpoint of step {step} in {directory} does not fit this run "
      f"(wanted vs saved). {difference.message()} The config has changed: "
      "use the old one, or a fresh workdir."
    )
  state = {}
  for name, tree in abstract_state.items():
    targets = {n: _target(leaf) for n, leaf in trees.flatten(tree).items()}
    filled = {n: t for n, t in targets.items() if math.prod(t.shape)}
    found = _read(directory / str(step) / name, filled) if filled else {}
    leaves = [
      found[n] if n in filled else _empty(target)
      for n, target in targets.items()
    ]
    state[name] = jax.tree.unflatten(jax.tree.structure(tree), leaves)
  _verify(checksums.of_tree(state), record["items"])
  return state, record["info"]


def read_item(
  directory: epath.Path, step: int, item: str, record: Mapping[str, Any]
) -> PyTree:
  """Returns one item as nested dicts of NumPy arrays; verifies it."""
  described = record["items"][item]
  # NumPy targets make Orbax return NumPy arrays; these use no memory.
  wanted = {
    name: np.broadcast_to(np.zeros((), _dtype(leaf)), leaf["shape"])
    for name, leaf in described.items()
  }
  filled = {name: x for name, x in wanted.items() if x.size}
  found = {name: x.copy() for name, x in wanted.items() if not x.size}
  if filled:
    found |= _read(directory / str(step) / item, filled)
  found = {name: found[name] for name in described}
  sums = {_full_name(item, n): checksums.of_array(x) for n, x in found.items()}
  _verify(sums, {item: described})
  return found[""] if list(found) == [""] else trees.unflatten(found)


def _target(leaf: Any) -> jax.ShapeDtypeStruct:
  sharding = getattr(leaf, "sharding", None)
  if sharding is None:
    if jax.process_count() > 1:
      mesh = jax.sharding.Mesh(np.array(jax.devices()), ("all",))
      sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    else:
      sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _empty(target: jax.ShapeDtypeStruct) -> jax.Array:
  return jax.make_array_from_callback(
    target.shape,
    target.sharding,
    lambda index: np.zeros(target.shape, target.dtype)[index],
  )


def _read(path: epath.Path, targets: Mapping[str, Any]) -> dict[str, Any]:
  """Reads `{leaf name: array}` onto targets of the same names."""
  nested = trees.unflatten({n or _BARE_LEAF: t for n, t in targets.items()})
  handler = ocp.StandardCheckpointHandler()
  with (
    staging.readable(path) as folder,
    ocp.Checkpointer(handler) as reader,
    jax.transfer_guard("allow"),
  ):
    tree = reader.restore(folder, args=ocp.args.StandardRestore(nested))
  found = trees.flatten(tree)
  return {name: found[name or _BARE_LEAF] for name in targets}


def _verify(found: Mapping[str, int], items: Mapping[str, Any]) -> None:
  saved = {
    _full_name(item, name): leaf["checksum"]
    for item, leaves in items.items()
    for name, leaf in leaves.items()
  }
  wrong = [name for name, x in found.items() if f"{x:016x}" != saved[name]]
  if wrong:
    raise ValueError(f"wrong checksum of {messages.shorten(wrong, 3)}")


def list_steps(directory: epath.Path) -> list[int]:
  """Returns the complete steps in a directory, in order."""
  if staging.is_needed(directory):
    return staging.list_steps(directory)
  if not directory.is_dir():
    return []
  names = ocp.path.step.standard_name_format()
  return sorted(found.step for found in names.find_all(directory))


def absolute(directory: str | os.PathLike) -> epath.Path:
  path = epath.Path(places.of(directory))
  return path if places.is_remote(directory) else path.expanduser().absolute()


def reason(error: BaseException) -> str:
  """Returns an error as one short line, without the errors that wrap it."""
  text = " ".join(str(error).split()) or type(error).__name__
  # Storage errors list files for five lines before the reason.
  if code := re.search(r"os_error_code='(\d+)'", text):
    return os.strerror(int(code[1]))
  return text if len(text) <= 300 else text[:300] + "…"
