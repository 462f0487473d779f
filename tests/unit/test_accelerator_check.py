"""The runner of scripts/accelerator_check, with processes of its own."""

import json
import sys
import time

import pytest

from scripts.accelerator_check import __main__ as check
from scripts.accelerator_check import child, families, parts, skip, table
from vitjax import models

PARTS = [parts.Part("a", x, seconds=60, alone=False) for x in "xyz"]


def run(tmp_path, script, now=PARTS, seconds=60.0):
  """Rows after a process that runs `script`, which knows `add(name)`."""
  file = tmp_path / "results.jsonl"
  prelude = (
    "import json, os, time\n"
    "def add(name):\n"
    f"  with open({str(file)!r}, 'a') as f:\n"
    "    row = {'part': name, 'tiny': True, 'status': 'ok', 'seconds': 0}\n"
    "    f.write(json.dumps(row) + '\\n')\n"
  )
  check.run(
    now,
    [sys.executable, "-c", prelude + script],
    file,
    tiny=True,
    end=time.monotonic() + seconds,
  )
  return {x["part"]: x for x in check.read(file)}


def test_rows_are_those_of_the_process(tmp_path):
  rows = run(tmp_path, "for x in 'xyz': add(f'a {x}')")
  assert {name: x["status"] for name, x in rows.items()} == dict.fromkeys(
    ("a x", "a y", "a z"), "ok"
  )


def test_a_part_that_ends_its_process_fails_alone(tmp_path):
  rows = run(tmp_path, "add('a x')\nos._exit(9)")
  assert rows["a x"]["status"] == "ok"
  assert rows["a y"]["status"] == "failed"
  assert "ended with 9; see a_x.log" in rows["a y"]["reason"]
  assert "a z" not in rows  # is tried in the next process


def test_a_part_that_hangs_is_stopped(tmp_path):
  short = [parts.Part("a", x, seconds=1, alone=False) for x in "xyz"]
  rows = run(tmp_path, "add('a x')\ntime.sleep(60)", short)
  assert "its limit of 1 s" in rows["a y"]["reason"]
  assert list(rows) == ["a x", "a y"]


def test_a_part_that_the_end_cuts_is_left_for_the_next_call(tmp_path):
  rows = run(tmp_path, "add('a x')\ntime.sleep(60)", seconds=1.5)
  assert set(rows) <= {"a x"}


def test_parts_share_a_process_if_they_may():
  assert [x.name for x in check.group(PARTS[1:])] == ["a y", "a z"]
  alone = [parts.Part("b"), parts.Part("b", "c")]
  assert [x.name for x in check.group(alone)] == ["b"]


@pytest.mark.parametrize(
  ("error", "status"),
  [(skip.Skip("No torch."), "skipped"), (ValueError("Bad.\nmore"), "failed")],
)
def test_a_row_says_why(monkeypatch, error, status):
  def fail(self, tiny):
    raise error

  monkeypatch.setattr(parts.Part, "run", fail)
  row = child.row_of(PARTS[0], tiny=True)
  assert row["status"] == status
  assert row["reason"].endswith(("No torch.", "ValueError: Bad."))


def test_every_family_takes_a_step():
  tested = {name for name, _ in families.CASES.values()} | {*families.CASES}
  assert tested >= {*models.FAMILIES} - {"mae", "captioner"}  # no classes
  names = [x.name for x in parts.every()]
  assert len(names) == len(set(names))


def test_figures_stand_beside_those_of_timm():
  row = {"part": "networks S/16", "status": "ok", "seconds": 1, "tiny": False}
  row |= {"train": {"median": 1234.0, "all": [1234.0]}, "peak_bytes": 2**30}
  text = table.markdown([json.loads(json.dumps(row))])
  assert "| S/16 | vitjax | 1,234 |" in text
  assert "| S/16 | timm |  |" in text
