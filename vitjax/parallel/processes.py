"""Starts and ends the processes of one run together.

Owns: starting `jax.distributed`, the meeting before it, and ending all
processes when one fails. JAX aborts a process whose peers are missing, without
a Python error. So all processes meet on the coordinator's port first, where a
message can name the missing ones and the differences.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from vitjax.config import plain

TIMEOUT_SECONDS = 60
# A process without a sign of life for this long counts as dead. A broken
# connection is noticed at once.
_HEARTBEAT_SECONDS = 30
_POLL_SECONDS = 1.0
_FAILED = "vitjax/failed"


class DistributedError(RuntimeError):
  """Processes of a run are missing, or they differ."""


def start(
  facts: Mapping[str, Any],
  *,
  coordinator_address: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
) -> int:
  """Starts `jax.distributed` if this process is one of several.

  Without arguments the launcher's environment decides: Cloud TPU, SLURM,
  OpenMPI and Kubernetes are known. Call it before any use of a device.

  Args:
    facts: nested plain data that must be the same in all processes, such
      as versions and the config.
    coordinator_address: host:port of process 0, for other launchers.
    num_processes: number of processes; with 1, nothing is started.
    process_id: index of this process, from 0.

  Returns:
    The index of this process.

  Raises:
    DistributedError: if processes are missing after a minute, or differ.
    ValueError: if the arguments are incomplete or out of range.
  """
  devices = None
  if num_processes is None and coordinator_address is None:
    found = _of_the_launcher()
    coordinator_address, num_processes, launcher_id, devices = found
    process_id = launcher_id if process_id is None else process_id
  given = (coordinator_address, num_processes, process_id)
  if num_processes == 1 or given == (None,) * 3:
    return 0
  if coordinator_address is None or num_processes is None or process_id is None:
    raise ValueError(
      f"coordinator_address={coordinator_address}, num_processes="
      f"{num_processes}, process_id={process_id}: give all three, or none to "
      "use the launcher's values."
    )
  if not 0 <= process_id < num_processes:
    raise ValueError(
      f"process_id={process_id} is not in 0..{num_processes - 1}."
    )
  meet(coordinator_address, num_processes, process_id, facts)

  import jax

  jax.distributed.initialize(
    coordinator_address,
    num_processes,
    process_id,
    devices,
    cluster_detection_method="deactivate",
    initialization_timeout=TIMEOUT_SECONDS,
    heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
  )
  threading.Thread(target=_watch, name="failures", daemon=True).start()
  return process_id


def _of_the_launcher() -> Sequence[Any]:
  """(coordinator address, processes, process, local devices) or Nones.

  Private names of JAX: it has no public function that detects the launcher
  without joining the run. `test_what_the_launcher_says` tells when they change.
  """
  from jax._src import cloud_tpu_init, clusters

  # JAX asks the metadata server or the Kubernetes API, which fails for a single
  # process there: ask only if there may be several.
  env = os.environ
  is_indexed_job = {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= {*env}
  may_be_several = (
    int(env.get("SLURM_NTASKS", 1)) > 1
    or int(env.get("OMPI_COMM_WORLD_SIZE", 1)) > 1
    or is_indexed_job
    or cloud_tpu_init.running_in_cloud_tpu_vm
  )
  if not may_be_several:
    return (None,) * 4
  detect = clusters.ClusterEnv.auto_detect_unset_distributed_params
  address = env.get("JAX_COORDINATOR_ADDRESS")
  found = detect(address, None, None, None, None, TIMEOUT_SECONDS)
  if found[1] is None and is_indexed_job:
    raise DistributedError(
      "this is a pod of an indexed Kubernetes job, but JAX cannot ask for the "
      "other pods: pip install 'jax[k8s]', or give --coordinator_address, "
      "--num_processes and --process_id. --num_processes=1 runs it alone."
    )
  return found


def meet(
  address: str,
  num_processes: int,
  process_id: int,
  facts: Mapping[str, Any],
  timeout: float = TIMEOUT_SECONDS,
) -> None:
  """Waits until all processes have connected with the same facts.

  Process 0 listens on the coordinator's port, the others tell it their facts
  and wait for its word.

  Raises:
    DistributedError: in every connected process, if one is missing after
      `timeout` seconds or they differ.
  """
  host, _, port = address.rpartition(":")
  if not host or not port.isdigit():
    raise ValueError(f"coordinator_address={address!r} is not host:port.")
  deadline = time.monotonic() + timeout
  own = {
    "process_id": process_id,
    "num_processes": num_processes,
    "host": socket.gethostname(),
    "facts": facts,
  }
  if process_id == 0:
    error = _gather(int(port), own, deadline, timeout)
  else:
    error = _introduce(host.strip("[]"), int(port), own, deadline, timeout)
  if error:
    raise DistributedError(error)


def _gather(port: int, own: dict, deadline: float, timeout: float) -> str:
  """The part of process 0; returns the error, or ""."""
  everyone, waiting = {0: own}, []
  try:
    both = socket.has_dualstack_ipv6()
    server = socket.create_server(
      ("", port),
      family=socket.AF_INET6 if both else socket.AF_INET,
      dualstack_ipv6=both,
      backlog=own["num_processes"],
    )
  except OSError as e:
    return (
      f"process 0 cannot listen on port {port}: {e.strerror or e}. If an "
      "earlier run still holds it, end that one or choose another port."
    )
  with server, contextlib.ExitStack() as stack:
    error = ""
    while not error and len(everyone) < own["num_processes"]:
      left = deadline - time.monotonic()
      if left <= 0:
        error = _missing(everyone, own["num_processes"], timeout)
        break
      server.settimeout(left)
      try:
        connection = stack.enter_context(server.accept()[0])
        other = _receive(connection, min(5.0, left))
        rank = other["process_id"]
      except (OSError, ValueError, KeyError, TypeError):
        continue  # not one of ours, or the deadline
      waiting.append(connection)
      if rank in everyone:
        error = (
          f"two processes say that they are process {rank}, on "
          f"{everyone[rank]['host']} and {other['host']}."
        )
      everyone[rank] = other
    error = error or _differences(everyone)
    for connection in waiting:
      with contextlib.suppress(OSError):  # it will miss the answer
        _send(connection, {"error": error})
  return error


def _introduce(
  host: str, port: int, own: dict, deadline: float, timeout: float
) -> str:
  """The part of the other processes; returns the error, or ""."""
  last = "no answer"
  while (left := deadline - time.monotonic()) > 0:
    try:
      with socket.create_connection((host, port), timeout=left) as connection:
        _send(connection, own)
        # Process 0 may have started later, and waits as long for the others.
        return _receive(connection, timeout + 5.0)["error"]
    except (OSError, ValueError, KeyError, TypeError) as e:
      last = getattr(e, "strerror", None) or str(e) or last
    time.sleep(0.2)
  return (
    f"process 0, the coordinator, was not reached at {host}:{port} within "
    f"{timeout:.0f} seconds ({last}). It is not running (see its own log), or "
    "a firewall blocks the port."
  )


def _send(connection: socket.socket, message: Mapping[str, Any]) -> None:
  connection.sendall(json.dumps(message).encode() + b"\n")


def _receive(connection: socket.socket, timeout: float) -> dict[str, Any]:
  connection.settimeout(timeout)
  with connection.makefile("rb") as file:
    return json.loads(file.readline())


def _missing(there: Mapping[int, Any], count: int, timeout: float) -> str:
  absent = [i for i in range(count) if i not in there]
  hosts = sorted({x["host"] for x in there.values()})
  return (
    f"{len(absent)} of {count} processes are missing after {timeout:.0f} "
    f"seconds: {_ranges(absent)}. Started are {_ranges(there)}, on "
    f"{', '.join(hosts[:8])}{', ...' if len(hosts) > 8 else ''}. Start all "
    "with the same command (under SLURM: with srun); the log of a missing one "
    "says why it did not come."
  )


def _differences(everyone: Mapping[int, Mapping[str, Any]]) -> str:
  """Differences from process 0; processes with the same ones share a line."""
  groups: dict[tuple[str, ...], list[int]] = {}
  first = everyone[0]
  for rank, other in sorted(everyone.items()):
    lines = plain.differences(first["facts"], other["facts"])
    counts = [x["num_processes"] for x in (first, other)]
    if counts[0] != counts[1]:
      lines.append(f"num_processes: {counts[0]} -> {counts[1]}")
    if lines:
      groups.setdefault(tuple(lines), []).append(rank)
  if not groups:
    return ""
  told = "\n".join(
    f"  {_ranges(ranks)} ({everyone[ranks[0]]['host']}): {'; '.join(lines)}"
    for lines, ranks in groups.items()
  )
  return (
    f"the processes of this run differ; process 0 ({first['host']}) "
    f"-> others:\n{told}\nInstall the same code and packages everywhere, and "
    "start all with the same command."
  )


def _ranges(numbers) -> str:
  """1, 2, 3, 7 -> "processes 1-3, 7"."""
  runs: list[list[int]] = []
  for i in sorted(numbers):
    if runs and i == runs[-1][1] + 1:
      runs[-1][1] = i
    else:
      runs.append([i, i])
  texts = [f"{a}" if a == b else f"{a}-{b}" for a, b in runs]
  plural = "" if len(numbers) == 1 else "es"
  return f"process{plural} {', '.join(texts)}"


def _jax_state() -> Any:
  """JAX's record of the run: `process_id`, and the `client` of its store.

  The client is None while `jax.distributed` is not running. A private name:
  JAX has no public way to the key-value store that the processes share.
  `test_other_files_on_one_of_the_hosts` tells when it changes.
  """
  from jax._src import distributed

  return distributed.global_state


def _watch() -> None:
  """Ends this process when another one reports that it failed."""
  while True:
    time.sleep(_POLL_SECONDS)
    state = _jax_state()
    client = state.client
    if client is None:  # shut down
      return
    try:
      text = client.key_value_try_get(_FAILED)
    except Exception:  # no message yet, or the coordinator is gone
      continue
    message = json.loads(text)
    if message["process_id"] == state.process_id:
      return  # on its way out
    print(
      f"vitjax.main: stopped because process {message['process_id']} failed: "
      f"{message['error']}",
      file=sys.stderr,
      flush=True,
    )
    os._exit(1)


def end_all(error: str, code: int) -> None:
  """Ends this process at once and tells the others to end, if there are any.

  Does not wait for them, as JAX does at the end of a process: they may be
  waiting for this one.
  """
  state = _jax_state()
  if (client := state.client) is None:
    return
  with contextlib.suppress(Exception):
    message = {"process_id": state.process_id, "error": error}
    client.key_value_set(_FAILED, json.dumps(message))
  if state.process_id == 0:
    time.sleep(2 * _POLL_SECONDS)  # the message is served by this process
  os._exit(code)


def check_alike(what: str, value: str) -> None:
  """Raises a DistributedError if processes have different values.

  All processes call it. Does nothing in a run of one process.
  """
  import jax

  if jax.process_count() == 1:
    return
  client, rank = _jax_state().client, jax.process_index()
  client.key_value_set(f"vitjax/alike/{what}/{rank}", value)
  ten_minutes = 600_000  # listing files may take one process longer
  client.wait_at_barrier(f"vitjax/alike/{what}", ten_minutes)
  values = dict(client.key_value_dir_get(f"vitjax/alike/{what}/"))
  others = [
    int(key.rpartition("/")[2])
    for key, other in values.items()
    if other != values[f"vitjax/alike/{what}/0"]
  ]
  if others:
    raise DistributedError(
      f"{_ranges(others)} found {what} that differs from that of process 0. "
      "All processes must see the same files."
    )
