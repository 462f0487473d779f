"""Devices of this machine, and their memory."""

import os
import subprocess
import sys

import jax
import pytest

from vitjax.parallel import devices


def test_the_devices_of_a_host_share_its_memory():
  total = devices.host_memory()
  assert 2**28 < total < 2**50
  cpus = jax.devices()
  assert len(cpus) > 1
  assert devices.memory_of(cpus[0]) == total // len(cpus)


@pytest.mark.parametrize(
  "group, files, limit",
  [
    ("0::/", {"memory.max": 7}, 7),
    # As under SLURM: the job's limit is above the step's, which has none.
    ("0::/job_1/step_0", {"job_1/memory.max": 7}, 7),
    ("0::/job_1", {"job_1/memory.max": 7, "memory.max": 5}, 5),
    ("5:memory:/docker/f00", {"memory/memory.limit_in_bytes": 7}, 7),
    ("4:devices:/\n5:memory:/a", {"memory/a/memory.limit_in_bytes": 7}, 7),
    ("0::/", {"memory.max": "max"}, None),
    ("4:devices:/", {"devices/memory.max": 7}, None),
  ],
)
def test_a_container_may_have_less(tmp_path, monkeypatch, group, files, limit):
  monkeypatch.setattr(devices, "_ROOT", tmp_path)
  whole = devices.host_memory()
  files = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
  for name, text in {"proc/self/cgroup": group, **files}.items():
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")
  assert devices.host_memory() == (limit or whole)


def test_a_device_that_is_not_there_is_one_line():
  code = "from vitjax.parallel import devices; devices.find()"
  result = subprocess.run(
    [sys.executable, "-c", code],
    env={**os.environ, "JAX_PLATFORMS": "cuda"},
    capture_output=True,
    text=True,
  )
  line = result.stderr.strip().splitlines()[-1]
  assert line == (
    "RuntimeError: JAX finds no device for JAX_PLATFORMS='cuda' (it sees none)."
    " Run `unset JAX_PLATFORMS` to use what there is, or install JAX for that "
    "device."
  )
