"""The commands that README.md and the tutorial print work as printed.

The training of the tutorial is shortened. A remark before a block says why it
is not run here: `installs`, `downloads` and `serves` (it never ends).
"""

import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
# Blocks of commands and of Python, with the remark that may stand before them.
BLOCK = re.compile(r"(?:<!-- (\w+) -->\n)?```(sh|python)\n(.*?)```", re.DOTALL)
PROMISED = {
  "README.md": (
    "Wrote 1,797 images",
    "Nothing is wrong.",
    "Wrote report.html",
    "images/val/3/0045.png",
    "Wrote digits.npz",
    "plain_vit.py",
  ),
  "docs/my_images.md": (
    "train  1437",
    "val    360",
    "Nothing is wrong.",
    "images/val/3/0045.png",
    "Wrote report.html",
    "(1, 128)",
  ),
}


@pytest.mark.slow
@pytest.mark.parametrize("page", PROMISED)
def test_the_commands_work_as_printed(page, tmp_path):
  environment = {
    **os.environ,
    "JAX_PLATFORMS": "cpu",
    "PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}",
    "PYTHONPATH": os.fspath(ROOT),
  }
  output = ""
  for remark, language, text in BLOCK.findall((ROOT / page).read_text()):
    if remark:
      assert remark in ("installs", "downloads", "serves"), remark
      continue
    text = text.replace("images --workdir", "images,epochs=1 --workdir")
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
  for promised in PROMISED[page]:
    assert promised in output
  assert (tmp_path / "digits.npz").is_file()
  assert (tmp_path / "digits.json").is_file()
