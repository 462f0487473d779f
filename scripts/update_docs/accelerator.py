"""The section of docs/performance.md on accelerators.

`scripts/accelerator_check.sh` measures it; its results.jsonl is to be copied to
docs/performance/accelerator.jsonl. Without that the cells are empty.
"""

import json
import pathlib

from scripts.accelerator_check import table

RESULTS = (
  pathlib.Path(__file__).parents[2] / "docs/performance/accelerator.jsonl"
)

_NONE = "**No accelerator was at hand yet, so the cells are empty.**"
_TEXT = """\
## On an accelerator

{state}

```sh
scripts/accelerator_check.sh     # under 10 minutes; the header says more
cp runs/accelerator/results.jsonl docs/performance/accelerator.jsonl
python -m scripts.update_docs
```

The script runs the doctor and the tests that need an accelerator, compares
fused with plain attention and a train step of each family with the CPU's, and
measures networks beside timm (bfloat16 autocast, channels last, fused
attention), input, checkpoints, and a run that is killed and resumed. Images
have 224 pixels. "Planned" is the memory that `vitjax.plan` compares with the
device's, "estimated" what it says where there is no compiler. Errors are
relative: of attention to its largest number in float32 on the CPU, of train
steps to the norm of the CPU's update.

{tables}"""


def parts() -> dict[str, str]:
  """Part of the page -> its text."""
  rows, state = [], _NONE
  if RESULTS.exists():
    lines = RESULTS.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    state = _measured(rows)
  return {"accelerator": _TEXT.format(state=state, tables=table.markdown(rows))}


def _measured(rows: list[dict]) -> str:
  facts = next((x["environment"] for x in rows if "environment" in x), None)
  if facts is None:
    return "The device was not recorded."
  versions = ", ".join(f"{k} {v}" for k, v in facts["versions"].items())
  return (
    f"Measured on {facts['devices']} x {facts['device']} with {versions}, "
    f"revision {facts['revision']}."
  )
