"""The commands of docs/my_images.md run as printed, with a shorter training."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PAGE = ROOT / "docs" / "my_images.md"
# Blocks of commands and of Python, with the remark that may stand before them.
BLOCK = re.compile(r"(?:<!-- (\w+) -->\n)?```(sh|python)\n(.*?)```", re.DOTALL)


@pytest.mark.slow
def test_the_commands_work_as_printed(tmp_path):
  (tmp_path / "configs").symlink_to(ROOT / "configs")
  environment = {
    **os.environ,
    "JAX_PLATFORMS": "cpu",
    "PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}",
    "PYTHONPATH": os.fspath(ROOT),
  }
  output = ""
  for remark, language, text in BLOCK.findall(PAGE.read_text()):
    if remark in ("installs", "downloads", "serves"):
      continue
    text = text.replace("epochs=30", "epochs=1")
    command = ["bash", "-ec"] if language == "sh" else ["python", "-c"]
    done = subprocess.run(
      [*command, text],
      cwd=tmp_path,
      env=environment,
      check=False,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}"
    output += done.stdout
  for promised in (
    "train  1437",
    "val    360",
    "Nothing is wrong.",
    "images/val/3/0045.png",
    "Wrote report.html",
    "(1, 192)",
  ):
    assert promised in output
  for file in ("digits.npz", "digits.json", "report.html"):
    assert (tmp_path / file).is_file()
