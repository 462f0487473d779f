"""The meeting of the processes of a run; threads stand for them."""

import concurrent.futures
import socket

import jax
import pytest

from vitjax.parallel.processes import (
  DistributedError,
  _of_the_launcher,
  meet,
  start,
)

FACTS = {
  "versions": {"jax": "0.10.2", "numpy": "2.1"},
  "git_revision": "abc",
  "config": {"total_steps": 40, "optim": {"name": "adam"}},
}


@pytest.fixture
def address():
  with socket.socket() as probe:
    probe.bind(("localhost", 0))
    return f"localhost:{probe.getsockname()[1]}"


def outcomes(address, *processes, timeout=20.0):
  """What `meet` raised, or None, of processes (count, rank, facts)."""
  with concurrent.futures.ThreadPoolExecutor(len(processes)) as pool:
    futures = [
      pool.submit(meet, address, *process, timeout) for process in processes
    ]
    return [future.exception(60) for future in futures]


def test_equal_processes_go_on(address):
  processes = [(4, rank, FACTS) for rank in (2, 0, 3, 1)]
  assert outcomes(address, *processes) == [None] * 4
  # The port is free for the coordinator of JAX at once.
  with socket.create_server(("localhost", int(address.split(":")[1]))):
    pass


def test_who_differs_in_what_is_said_to_all(address):
  other = FACTS | {
    "versions": {"jax": "0.10.1", "numpy": "2.1"},
    "config": {"total_steps": 41, "optim": {"name": "adam"}},
  }
  facts = [FACTS, other, FACTS, other, other, FACTS | {"git_revision": "abd"}]
  errors = outcomes(address, *((6, rank, x) for rank, x in enumerate(facts)))
  assert {type(e) for e in errors} == {DistributedError}
  (text,) = {str(e) for e in errors}
  _, first, second, _ = text.splitlines()
  assert first.startswith("  processes 1, 3-4 (")
  assert first.endswith(
    "config.total_steps: 40 -> 41; versions.jax: 0.10.2 -> 0.10.1"
  )
  assert second.startswith("  process 5 (")
  assert second.endswith("): git_revision: abc -> abd")


def test_a_different_count_is_a_difference(address):
  errors = outcomes(address, (2, 0, FACTS), (3, 1, FACTS))
  assert all("num_processes: 2 -> 3" in str(e) for e in errors)


def test_who_is_missing_is_said_to_all(address):
  processes = [(7, rank, FACTS) for rank in (0, 2)]
  errors = outcomes(address, *processes, timeout=1.0)
  (text,) = {str(e) for e in errors}
  assert "5 of 7 processes are missing after 1 seconds" in text
  assert "processes 1, 3-6. Started are processes 0, 2, on" in text


def test_a_missing_coordinator(address):
  (error,) = outcomes(address, (2, 1, FACTS), timeout=0.5)
  assert f"was not reached at {address} within 0 seconds" in str(error)
  assert "refused" in str(error)


def test_two_with_the_same_number(address):
  errors = outcomes(address, *((3, rank, FACTS) for rank in (0, 1, 1)))
  assert all(
    "two processes say that they are process 1" in str(e) for e in errors
  )


def test_a_port_that_is_taken(address):
  with socket.create_server(("", int(address.split(":")[1]))):
    (error,) = outcomes(address, (2, 0, FACTS), timeout=1.0)
  assert "process 0 cannot listen on port" in str(error)
  assert "in use" in str(error)


def test_strangers_are_ignored(address):
  # A port scanner, a health check, an old process that shuts down.
  host, port = address.split(":")
  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    first = pool.submit(meet, address, 2, 0, FACTS, 20.0)
    for message in (b"GET / HTTP/1.1\r\n", b"7\n", b"{}\n", b""):
      while True:
        try:
          stranger = socket.create_connection((host, int(port)))
          break
        except OSError:
          continue
      with stranger:
        stranger.sendall(message)
    meet(address, 2, 1, FACTS, 20.0)
    assert first.exception(60) is None


def test_a_server_of_something_else_is_no_coordinator(address):
  # As while a coordinator that lost its peers has not ended yet.
  with socket.create_server(("localhost", int(address.split(":")[1]))) as old:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
      late = pool.submit(meet, address, 2, 1, FACTS, 20.0)
      connection, _ = old.accept()
      connection.sendall(b"\x00\x00\x12\x04")
      connection.close()
      old.close()
      meet(address, 2, 0, FACTS, 20.0)
      assert late.exception(60) is None


@pytest.mark.parametrize(
  ("environment", "expected"),
  [
    ({}, None),
    ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1"}, None),
    # In a batch script, without srun.
    ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, None),
    (
      {
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_NODELIST": "node[003-004]",
        "SLURM_NTASKS": "4",
        "SLURM_PROCID": "2",
        "SLURM_LOCALID": "0",
      },
      ("node003:61447", 4, 2, [0]),
    ),
    (
      {
        "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911",
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_RANK": "1",
        "OMPI_COMM_WORLD_LOCAL_RANK": "1",
      },
      ("10.96.0.1:62624", 2, 1, [1]),
    ),
    # A pod that is no part of a job is asked nothing.
    ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),
  ],
)
def test_what_the_launcher_says(monkeypatch, environment, expected):
  for name in ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"):
    monkeypatch.delenv(name, raising=False)
  for name, value in environment.items():
    monkeypatch.setenv(name, value)
  try:
    found = _of_the_launcher()
  except (ImportError, AttributeError, TypeError) as error:
    pytest.fail(
      f"jax {jax.__version__} changed what parallel.processes._of_the_launcher "
      f"uses of jax._src: {error!r}. Adapt that function, for both ends of the "
      "versions that docs/versions.md gives."
    )
  assert tuple(found) == (expected or (None,) * 4)
  if expected is None:
    assert start(FACTS) == 0


@pytest.mark.filterwarnings("ignore:.*Kubernetes environment detected")
def test_a_pod_of_a_job_does_not_run_alone_unnoticed(monkeypatch):
  monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
  monkeypatch.setenv("JOB_COMPLETION_INDEX", "0")
  with pytest.raises(DistributedError, match=r"pip install 'jax\[k8s\]'"):
    start(FACTS)
  assert start(FACTS, num_processes=1) == 0


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ({"num_processes": 2}, "give all three, or none"),
    ({"coordinator_address": "a:1"}, "num_processes=None"),
    (
      {"coordinator_address": "a:1", "num_processes": 2, "process_id": 2},
      "process_id=2 is not in 0..1",
    ),
    (
      {"coordinator_address": "a", "num_processes": 2, "process_id": 1},
      "coordinator_address='a' is not host:port",
    ),
  ],
)
def test_arguments(arguments, message):
  with pytest.raises(ValueError, match=message):
    start(FACTS, **arguments)
