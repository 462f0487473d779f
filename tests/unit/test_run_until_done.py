"""The loop that starts a run again, with a shell script instead of a run."""

import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]
LOOP = ROOT / "scripts" / "run_until_done.sh"


def command(tmp_path, body, *options):
  """The loop around a script that counts its starts in the file `starts`."""
  script = tmp_path / "run.sh"
  script.write_text(
    f"cd {tmp_path}\necho x >> starts\nn=$(wc -l < starts)\n{body}\n"
  )
  (tmp_path / "checkpoints").mkdir()
  return [LOOP, "-w", "0", *options, "bash", script, f"--workdir={tmp_path}"]


def starts(tmp_path):
  file = tmp_path / "starts"
  return len(file.read_text().split()) if file.exists() else 0


@pytest.mark.parametrize(
  ("body", "code", "expected"),
  [
    ("exit 0", 0, 1),
    # Any number of times stopped, with and without a new checkpoint.
    ("[ $n -ge 6 ] || exit 75", 0, 6),
    ("exit 1", 1, 3),
    ("[ $n -ge 3 ] || kill -9 $$", 0, 3),
    # Each failure comes after progress: of 9 and 10, 10 is the newer one.
    ("mkdir checkpoints/$((n + 7)); [ $n -ge 8 ] || exit 134", 0, 8),
    # What is not a complete checkpoint is no progress.
    ("mkdir checkpoints/$n.orbax-checkpoint-tmp; exit 7", 7, 3),
    # Failures count from the last checkpoint on.
    ("[ $n -ge 3 ] || mkdir checkpoints/$n; exit 1", 1, 4),
    ("[ $n = 2 ] && exit 75; exit 1", 1, 5),
  ],
)
def test_when_it_starts_again(tmp_path, body, code, expected):
  result = subprocess.run(command(tmp_path, body), timeout=60)
  assert result.returncode == code
  assert starts(tmp_path) == expected


def test_the_number_of_failures_is_an_option(tmp_path):
  result = subprocess.run(
    command(tmp_path, "exit 5", "-n", "1"), capture_output=True, text=True
  )
  assert (result.returncode, starts(tmp_path)) == (5, 1)
  assert "exit code 5, 1 times in a row without a new" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_waits_until_the_run_has_saved(tmp_path, number):
  body = (
    "trap 'sleep 0.3; touch saved; exit 75' TERM\n"
    "touch ready; while :; do sleep 0.05; done"
  )
  # A shell cannot trap what was ignored when it started, as SIGINT is where
  # the tests run in the background.
  restored = (
    "import os, signal, sys; signal.signal(int(sys.argv[1]), signal.SIG_DFL); "
    "os.execvp(sys.argv[2], sys.argv[2:])"
  )
  loop = subprocess.Popen(
    [sys.executable, "-c", restored, str(int(number)), *command(tmp_path, body)]
  )
  try:
    while not (tmp_path / "ready").exists():
      time.sleep(0.01)
    loop.send_signal(number)
    assert loop.wait(60) == 75
  finally:
    loop.kill()
  assert (tmp_path / "saved").exists() and starts(tmp_path) == 1


@pytest.mark.parametrize("arguments", [[], ["true"], ["-x", "true"]])
def test_a_wrong_call_says_how(arguments):
  result = subprocess.run([LOOP, *arguments], capture_output=True, text=True)
  assert result.returncode == 2
  assert "run_until_done.sh [-n CRASHES]" in result.stderr


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="not installed")
def test_the_shell_scripts_pass_shellcheck():
  scripts = sorted((ROOT / "scripts").glob("*.sh"))
  assert LOOP in scripts
  subprocess.run(
    ["shellcheck", "--shell=bash", "-x", *scripts], cwd=ROOT, check=True
  )
