"""The launch scripts, with stand-ins for the cloud's commands.

`gcloud` and `ssh` run what they are given in a folder that stands for the
home of the other machine; there `python -m vitjax.main` is a script of the
test. What cannot be seen here is whether the cloud takes the commands.
"""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml

from tests.e2e import launch

ROOT = pathlib.Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts" / "launch"
RUN = ("--", "--config=c.py:a,b=folder:/x y", "--workdir=/shared/it's mine")

# Each slice has its file `life...`: its states, of which the last one stays.
GCLOUD = """
echo "$*" >> "$FAKES/calls"
case "$*" in
  *"queued-resources describe"*)
    [ -s "$FAKES/states" ] || exit 1
    head -n 1 "$FAKES/states"
    [ "$(wc -l < "$FAKES/states")" = 1 ] || sed -i 1d "$FAKES/states" ;;
  *"queued-resources create"*)
    mkdir -p "$HOST"
    mv "$(ls -d "$FAKES"/life* | head -n 1)" "$FAKES/states" ;;
  *"queued-resources delete"*)
    pkill -9 -s "$(cat "$HOST/vitjax/.launched/pid")"
    rm -rf "$HOST" "$FAKES/states" ;;
  *"tpu-vm scp"*) cp "$5" "$HOST/vitjax.bundle" ;;
  *"tpu-vm ssh"*)
    for last; do :; done
    cd "$HOST" && HOME="$HOST" bash -c "${last#--command=}" ;;
esac
"""
SSH = 'cd "$HOST" && HOME="$HOST" bash -c "$2"'
SCP = 'cp "$2" "$HOST/vitjax.bundle"'
# Installing is left out; the run is the script `main`, with its arguments.
PYTHON = """
case "$*" in
  *"-m venv"*) mkdir -p .venv/bin; cp "$0" .venv/bin/python
    echo "PATH=$PWD/.venv/bin:\\$PATH" > .venv/bin/activate ;;
  *"-m pip"*) echo "$*" >> "$FAKES/installed" ;;
  *"-m vitjax.main"*) shift 2; printf '%s\\n' "$@" > "$FAKES/arguments"
    exec bash "$FAKES/main" ;;
  *"import jax"*) echo "8 devices" ;;
esac
"""


@pytest.fixture
def cloud(tmp_path):
  """Runs a launch script; `.fakes` and `.host` are the folders behind it."""
  fakes, host = tmp_path / "fakes", tmp_path / "host"
  fakes.mkdir()
  host.mkdir()
  tools = {"gcloud": GCLOUD, "ssh": SSH, "scp": SCP, "python3": PYTHON}
  tools["sleep"] = "exec /bin/sleep 0.05"
  for name, body in tools.items():
    (fakes / name).write_text(f"#!/bin/bash\n{body}")
    (fakes / name).chmod(0o755)
  # A copy, for only what is committed is sent.
  checkout = tmp_path / "checkout"
  shutil.copytree(ROOT / "scripts", checkout / "scripts")
  (checkout / "requirements.txt").touch()
  git = ["git", "-C", checkout, "-c", "user.name=x", "-c", "user.email=x@y"]
  for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
    subprocess.run([*git, *command], check=True)
  env = {
    # What chooses the environment of this run is not for the other machine.
    **{
      key: value
      for key, value in os.environ.items()
      if key not in ("VENV", "PYTHON", "REQUIREMENTS")
    },
    "PATH": f"{fakes}:{os.environ['PATH']}",
    "FAKES": str(fakes),
    "HOST": str(host),
  }

  def run(script, *arguments):
    return subprocess.run(
      [checkout / "scripts" / "launch" / script, *arguments],
      env=env,
      capture_output=True,
      text=True,
      timeout=60,
    )

  run.fakes, run.host = fakes, host
  yield run
  if (pid := host / "vitjax" / ".launched" / "pid").exists():
    subprocess.run(["pkill", "-9", "-s", pid.read_text().strip()])


def wait_for(condition):
  deadline = time.monotonic() + 120
  while not condition():
    assert time.monotonic() < deadline
    time.sleep(0.02)


def test_a_run_on_one_machine(cloud):
  (cloud.fakes / "main").write_text(
    'trap "echo saved; exit 75" TERM; echo step; /bin/sleep 60 & wait $!'
  )
  installed = cloud("gpu_box.sh", "install", "--host=box")
  assert installed.returncode == 0, installed.stderr
  assert "--editable .[gpu]" in (cloud.fakes / "installed").read_text()
  assert cloud("gpu_box.sh", "devices", "--host=box").stdout == "8 devices\n"
  assert cloud("gpu_box.sh", "status", "--host=box").stdout == "none\n"

  assert cloud("gpu_box.sh", "start", "--host=box", *RUN).returncode == 0
  wait_for((cloud.fakes / "arguments").exists)
  assert (cloud.fakes / "arguments").read_text().splitlines() == [*RUN[1:]]
  wait_for(lambda: "step" in cloud("gpu_box.sh", "status", "--host=box").stdout)
  again = cloud("gpu_box.sh", "start", "--host=box", *RUN)
  assert again.returncode == 0 and "already running" in again.stderr
  other = cloud("gpu_box.sh", "start", "--host=box", "--", "--workdir=/other")
  assert other.returncode == 2 and "another run is running" in other.stderr

  stopped = cloud("gpu_box.sh", "stop", "--host=box")
  assert "stopped with exit code 75" in stopped.stderr
  assert cloud("gpu_box.sh", "status", "--host=box").stdout == (
    "exit 75\nstep\nsaved\n"
  )


SLICE = ("--name=s16", "--zone=z", "--type=v5litepod-16", "--spot", "--every=0")


def test_a_slice_that_is_taken_away_is_made_again(cloud):
  """Absent, waiting, there; taken away while running; done the second time."""
  life = ["WAITING_FOR_RESOURCES", *["ACTIVE"] * 4, "SUSPENDED"]
  (cloud.fakes / "life1").write_text("\n".join([*life, ""]))
  (cloud.fakes / "life2").write_text("PROVISIONING\nACTIVE\n")
  (cloud.fakes / "main").write_text(
    'echo x >> "$FAKES/starts"\n'
    '[ -e "$FAKES/life2" ] || exit 0\n/bin/sleep 6543'
  )
  done = cloud("tpu_vm.sh", "keep", *SLICE, *RUN)
  assert done.returncode == 0, done.stderr
  calls = (cloud.fakes / "calls").read_text()
  verbs = [line.split()[3] for line in calls.splitlines() if "queued" in line]
  assert verbs.count("create") == 2 and verbs.count("delete") == 1
  assert (cloud.fakes / "starts").read_text() == "x\nx\n"
  create = next(x for x in calls.splitlines() if "queued-resources create" in x)
  assert create.endswith(
    "create s16 --zone=z --node-id=s16 --accelerator-type=v5litepod-16 "
    "--runtime-version=v2-alpha-tpuv5-lite --spot"
  )


@pytest.mark.parametrize(("code", "expected"), [(0, "exit 0"), (1, "exit 1")])
def test_the_end_of_a_run_on_a_slice(cloud, code, expected):
  (cloud.fakes / "states").write_text("ACTIVE\n")
  (cloud.fakes / "main").write_text(f"exit {code}")
  done = cloud("tpu_vm.sh", "keep", *SLICE, *RUN)
  assert done.returncode == (2 if code else 0)
  assert ("the run failed" in done.stderr) == bool(code)
  assert cloud("tpu_vm.sh", "status", *SLICE).stdout.startswith(expected)


def test_a_slice_that_does_not_come(cloud):
  (cloud.fakes / "life1").write_text("PROVISIONING\nFAILED\n")
  done = cloud("tpu_vm.sh", "create", *SLICE)
  assert done.returncode == 2 and "s16 will not come (FAILED)" in done.stderr


def test_the_job_of_slurm(cloud):
  sbatch, srun = cloud.fakes / "sbatch", cloud.fakes / "srun"
  sbatch.write_text('#!/bin/bash\ncat > "$FAKES/job"')
  srun.write_text('#!/bin/bash\nprintf "%s\\n" "$@" > "$FAKES/ran"; exit $CODE')
  (cloud.fakes / "scontrol").write_text('#!/bin/bash\necho "$@"')
  for name in ("sbatch", "srun", "scontrol"):
    (cloud.fakes / name).chmod(0o755)
  done = cloud("slurm.sh", "--nodes=2", "--gpus=4", "--account=lab", *RUN)
  assert done.returncode == 0, done.stderr
  job = cloud.fakes / "job"
  options = [x for x in job.read_text().splitlines() if x.startswith("#SBATCH")]
  for option in ("nodes=2", "ntasks-per-node=4", "account=lab", "requeue"):
    assert f"#SBATCH --{option}" in options
  for code, printed in ((75, "requeue 17\n"), (0, ""), (1, "")):
    env = {"PATH": f"{cloud.fakes}:/usr/bin:/bin", "CODE": str(code)}
    end = subprocess.run(
      ["bash", job],
      env={**env, "FAKES": str(cloud.fakes), "SLURM_JOB_ID": "17"},
      capture_output=True,
      text=True,
    )
    assert (end.returncode, end.stdout) == (code, printed), end.stderr
  assert (cloud.fakes / "ran").read_text().splitlines() == [
    "scripts/launch/remote.sh",
    "exec",
    *RUN[1:],
  ]


def test_the_manifest_of_gke(cloud):
  (cloud.fakes / "kubectl").write_text('#!/bin/bash\ncat > "$FAKES/manifest"')
  (cloud.fakes / "kubectl").chmod(0o755)
  (cloud.fakes / "python3").unlink()  # that of the machine writes JSON
  options = ("name=s16", "image=i", "type=t", "topology=4x4", "volume=shared")
  options = [f"--{x}" for x in (*options, "hosts=4", "chips=4")]
  done = cloud("gke.sh", "start", *options, *RUN)
  assert done.returncode == 0, done.stderr
  spec = yaml.safe_load((cloud.fakes / "manifest").read_text())["spec"]
  job = spec["replicatedJobs"][0]["template"]["spec"]
  assert job["completions"] == job["parallelism"] == 4
  (container,) = job["template"]["spec"]["containers"]
  assert container["args"] == ["exec", *RUN[1:]]


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["gpu_box.sh", "start"], "--host=... is missing"),
    (["gpu_box.sh", "begin"], "'begin' is none of install"),
    (["gpu_box.sh", "start", "--hots=x"], "--hots is not an option. Known: "),
    (["gpu_box.sh", "start", "--host=x"], "give the run after --, such as"),
    (["tpu_vm.sh", "create", "--name=a", "--zone=z"], "--type=... is missing"),
    (
      ["tpu_vm.sh", "create", "--name=a", "--zone=z", "--type=v9-8"],
      "--type=v9-8 has no known runtime version",
    ),
    (["slurm.sh", "x"], "'x' is not an option"),
    (["gke.sh", "start", "--name=x"], "--image=... is missing"),
  ],
)
def test_wrong_calls(cloud, arguments, message):
  done = cloud(*arguments)
  assert done.returncode == 2 and message in done.stderr
  assert not (cloud.fakes / "calls").exists()


@pytest.mark.parametrize(
  "name", ["gpu_box.sh", "tpu_vm.sh", "gke.sh", "slurm.sh"]
)
def test_help_and_dry_run(cloud, name):
  assert "--dry-run" in cloud(name, "--help").stdout
  options = "name=a zone=z type=v6e-8 host=h image=i topology=2x4 hosts=1"
  words = "" if name == "slurm.sh" else "start"
  known = cloud(name, "--help").stdout
  options = [
    f"--{x}"
    for x in (*options.split(), "chips=8", "volume=v")
    if f"--{x.split('=')[0]}=" in known
  ]
  done = cloud(name, *words.split(), *options, "--dry-run", *RUN)
  assert done.returncode == 0, done.stderr
  assert "\n+ " in f"\n{done.stderr}"
  assert not (cloud.fakes / "calls").exists()


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="no shellcheck here")
def test_shellcheck():
  files = [*ROOT.glob("scripts/*.sh"), *SCRIPTS.glob("*.sh")]
  assert len(files) >= 9
  done = subprocess.run(
    ["shellcheck", "-x", *files], cwd=ROOT, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_a_real_run_in_the_background(tmp_path):
  """`remote.sh` with what this environment has, killed and stopped."""
  checkout = tmp_path / "checkout"
  for name in ("scripts", "vitjax", "configs"):
    shutil.copytree(ROOT / name, checkout / name)
  (checkout / ".venv" / "bin").mkdir(parents=True)
  (checkout / ".venv" / "bin" / "activate").write_text(
    f"PATH={pathlib.Path(sys.executable).parent}:$PATH\n"
  )

  def remote(*arguments):
    return subprocess.run(
      [checkout / "scripts" / "launch" / "remote.sh", *arguments],
      env={**os.environ, "JAX_PLATFORMS": "cpu"},
      capture_output=True,
      text=True,
      timeout=120,
    )

  assert "process 0 of 1" in remote("devices").stdout
  workdir = tmp_path / "run"
  arguments = ("start", "--config=configs/quickstart.py")
  arguments += ("--config.checkpoint.every_steps=20", f"--workdir={workdir}")
  assert remote(*arguments).returncode == 0
  try:
    wait_for(lambda: launch.last_step(workdir) > 30)
    children = subprocess.run(
      ["pgrep", "-f", f"vitjax.main.*{workdir}"], capture_output=True, text=True
    ).stdout.split()
    for pid in children:  # only the training process: the loops are bash
      if "python" in pathlib.Path(f"/proc/{pid}/exe").resolve().name:
        os.kill(int(pid), signal.SIGKILL)
    before = launch.last_step(workdir)
    wait_for(lambda: launch.last_step(workdir) > before)
  finally:
    stopped = remote("stop")
  assert "stopped with exit code 75" in stopped.stderr
  assert remote("status").stdout.startswith("exit 75\n")
