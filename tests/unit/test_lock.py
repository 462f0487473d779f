"""A run folder belongs to one living run at a time."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time

import psutil
import pytest

from vitjax.run_folder import lock


@pytest.fixture(autouse=True)
def quick(monkeypatch):
  monkeypatch.setattr(lock, "_BEAT_SECONDS", 0.1)
  monkeypatch.setattr(lock, "_SILENT_SECONDS", 1)
  monkeypatch.setattr(lock, "_POLL_SECONDS", 0.05)


@pytest.fixture
def said(monkeypatch):
  lines = []
  for level in ("info", "warning"):
    monkeypatch.setattr(
      lock.logging, level, lambda text, *args: lines.append(text % args)
    )
  return lines


def write_lock(folder, **changes):
  """The lock of a process elsewhere, with some of its content changed."""
  content = {
    "host": "other-host",
    "process": os.getpid(),
    "since": "2026-01-02 03:04:05+00:00",
    "process_started": psutil.Process().create_time(),
    "machine": "another",
    "id": "0" * 32,
  }
  (folder / "lock.json").write_text(json.dumps(content | changes))


_CHILD = """
  import pathlib, sys, time
  from vitjax.run_folder import lock
  with lock.held(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def child(tmp_path):
  """A process that holds the lock of `tmp_path`."""
  process = subprocess.Popen(
    [sys.executable, "-c", textwrap.dedent(_CHILD), str(tmp_path)],
    stdout=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline() == "held\n"
  yield process
  process.kill()
  process.communicate()


def test_a_second_run_is_told_who_has_the_folder(tmp_path, child):
  with pytest.raises(lock.RunFolderInUseError) as error:
    with lock.held(tmp_path):
      pass
  for part in (
    f"{tmp_path} is in use: process {child.pid} on {socket.gethostname()} "
    "(since 20",
    "another --workdir",
    f"delete {tmp_path / 'lock.json'}",
  ):
    assert part in str(error.value)
  assert json.loads((tmp_path / "lock.json").read_text())["process"] == (
    child.pid
  )


@pytest.mark.parametrize("reaped", [True, False], ids=["reaped", "zombie"])
def test_after_a_kill_the_next_run_does_not_wait(tmp_path, child, said, reaped):
  child.send_signal(signal.SIGKILL)
  if reaped:
    child.wait()
  else:
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
  with lock.held(tmp_path) as check:
    check()
    assert [p.name for p in tmp_path.iterdir()] == ["lock.json"]
  assert len(said) == 1 and "watching" not in said[0]
  assert said[0].startswith(f"Taking over {tmp_path}: process {child.pid} on")


def test_it_is_released_also_after_an_error(tmp_path, said):
  with pytest.raises(KeyError):
    with lock.held(tmp_path / "run"):
      raise KeyError
  with lock.held(tmp_path / "run"):
    assert (tmp_path / "run" / "lock.json").exists()
  assert not list((tmp_path / "run").iterdir()) and not said


def test_other_processes_of_the_run_pass(tmp_path):
  with lock.held(tmp_path), lock.held(tmp_path, is_main=False) as check:
    check()
  with lock.held(tmp_path / "absent", is_main=False):
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize(
  "changes",
  [
    {},
    # The id of the process is that of a later one.
    {"machine": lock._machine(), "process_started": 1.0},
  ],
  ids=["elsewhere", "reused"],
)
def test_a_holder_that_cannot_be_asked_is_watched(tmp_path, said, changes):
  write_lock(tmp_path, **changes)
  # Alive: it renews its lock, whatever its clock says.
  ended = threading.Event()

  def renew():
    while not ended.wait(0.2):
      os.utime(tmp_path / "lock.json", (1, time.monotonic()))

  thread = threading.Thread(target=renew)
  thread.start()
  try:
    with pytest.raises(lock.RunFolderInUseError, match="on other-host"):
      with lock.held(tmp_path):
        pass
  finally:
    ended.set()
    thread.join()
  # Dead: it does not.
  os.utime(tmp_path / "lock.json")
  start = time.monotonic()
  with lock.held(tmp_path):
    assert time.monotonic() - start >= 1
  assert "watching for 1 seconds whether it is alive" in said[-2]
  assert said[-1].startswith(f"Taking over {tmp_path}")


def test_a_holder_renews_its_lock(tmp_path):
  with lock.held(tmp_path):
    file = tmp_path / "lock.json"
    os.utime(file, (1, 1))
    end = time.monotonic() + 10
    while file.stat().st_mtime == 1 and time.monotonic() < end:
      time.sleep(0.01)
    assert file.stat().st_mtime > 1


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"host": "a"'])
def test_a_damaged_lock(tmp_path, said, monkeypatch, content):
  monkeypatch.setattr(lock, "_SILENT_SECONDS", 0.2)
  (tmp_path / "lock.json").write_text(content)
  with lock.held(tmp_path):
    pass
  assert "an unknown process" in said[0] and "watching" in said[0]


def test_a_holder_that_was_thought_dead_stops(tmp_path):
  with lock.held(tmp_path) as check:
    check()
    write_lock(tmp_path)
    with pytest.raises(lock.RunFolderInUseError, match="taken over by process"):
      check()
  assert (tmp_path / "lock.json").exists()  # that of the other one


def test_a_lock_that_somebody_deleted_is_written_again(tmp_path, said):
  with lock.held(tmp_path) as check:
    (tmp_path / "lock.json").unlink()
    check()
    assert (tmp_path / "lock.json").exists() and "deleted" in said[0]
    check()


@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
def test_a_full_disk_leaves_no_lock(tmp_path):
  import resource

  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  resource.setrlimit(resource.RLIMIT_FSIZE, (9, before[1]))
  try:
    with pytest.raises(OSError, match=r"lock\.json cannot be written: File"):
      with lock.held(tmp_path):
        pass
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)
  assert not list(tmp_path.iterdir())


def test_a_kill_during_a_takeover(tmp_path, said):
  dead = subprocess.Popen([sys.executable, "-c", ""])
  dead.wait()
  write_lock(tmp_path, process=dead.pid, machine=lock._machine())
  (tmp_path / ".lock.json.removing").touch()
  with lock.held(tmp_path) as check:
    check()
  assert not list(tmp_path.iterdir()) and len(said) == 1


def _race(folder, barrier, results):
  barrier.wait()
  try:
    with lock.held(folder):
      results.put("held")
      barrier.wait()
  except lock.RunFolderInUseError:
    results.put("refused")
    barrier.wait()


@pytest.mark.parametrize("stale", [False, True], ids=["fresh", "stale"])
def test_of_many_that_start_at_once_one_gets_it(tmp_path, stale):
  spawn = multiprocessing.get_context("spawn")
  barrier, results = spawn.Barrier(6), spawn.Queue()
  if stale:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    write_lock(tmp_path, process=dead.pid, machine=lock._machine())
  racers = [
    spawn.Process(target=_race, args=(tmp_path, barrier, results))
    for _ in range(6)
  ]
  for racer in racers:
    racer.start()
  found = sorted(results.get(timeout=60) for _ in racers)
  for racer in racers:
    racer.join()
  assert found == ["held"] + ["refused"] * 5
  assert not list(tmp_path.iterdir())
