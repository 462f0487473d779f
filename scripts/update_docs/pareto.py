"""The section of docs/performance.md on the models of timm's comparison.

`scripts/pareto_study.py` measures them. Without its files there is no section.
"""

import csv
import json

from scripts import pareto_study

_TEXT = """\
## Speed and accuracy of published models

The models of timm's
[comparison](https://huggingface.co/blog/rwightman/vit-sbb-imagenet-full) of
weights from ImageNet-12k and -22k, fine-tuned on ImageNet-1k: forward passes
with batches of {batch} on {device} ({cores}), in {dtype}, the median of
{repeats} measurements, with random weights. Top-1 and top-5 are as timm
published them (`results-imagenet.csv`), not measured here. Bold rows are on the
Pareto front of speed here and top-1: {front} of {count} models.

![Top-1 against images per second and parameters](pareto/timm-12k.png)

{table}

The same in [timm-12k.csv](pareto/timm-12k.csv). To measure on another machine:

```sh
python -m vitjax.pareto --models=@timm-12k --resume --batch_size={batch} \\
  --out=table.csv,table.png
```
"""
_FAMILIES = """
**Beside timm.** The least costly model of each family, with timm {timm} and
torch {torch}, both in float32 on all cores, taking turns. A ratio above 1:
vitjax is faster.

{table}

`python -m scripts.pareto_study` repeats both tables.
"""


def parts() -> dict[str, str]:
  """Part of the page -> its text."""
  if not pareto_study.TABLE.exists():
    return {"pareto": ""}
  facts = json.loads(pareto_study.TABLE.read_text(encoding="utf-8"))
  rows = sorted(facts["rows"], key=lambda x: -x["infer_samples_per_sec"])
  text = _TEXT.format(
    batch=rows[0]["infer_batch_size"],
    device=facts["device"],
    cores=f"{facts['cores']} cores",
    dtype=facts["dtype"],
    repeats=facts["repeats"],
    front=sum(bool(row["pareto"]) for row in rows),
    count=len(rows),
    table=_table(
      ("model", "pixels", "images / s", "top-1", "top-5", "parameters in 1e6"),
      map(_row, rows),
    ),
  )
  if pareto_study.FAMILIES.exists():
    with open(pareto_study.FAMILIES, newline="", encoding="utf-8") as file:
      families = list(csv.DictReader(file))
    text += _FAMILIES.format(
      timm=families[0]["timm version"],
      torch=families[0]["torch version"],
      table=_table(
        ("model", "pixels", "vitjax / s", "timm / s", "ratio"),
        map(_family, families),
      ),
    )
  return {"pareto": text.strip()}


def _row(row: dict) -> tuple:
  cells = (
    f"`{row['model']}`",
    row["img_size"],
    f"{row['infer_samples_per_sec']:.3g}",
    f"{row['top1']:.2f}",
    f"{row['top5']:.2f}",
    f"{row['param_count']:.1f}",
  )
  return tuple(f"**{cell}**" for cell in cells) if row["pareto"] else cells


def _family(row: dict) -> tuple:
  ratios = [float(x) for x in row["turns"].split()]
  return (
    f"`{row['model']}`",
    row["img_size"],
    row["vitjax"],
    row["timm"],
    f"{row['ratio']} ({min(ratios):g} .. {max(ratios):g})",
  )


def _table(head, rows) -> str:
  lines = [head, ["---"] * len(head), *rows]
  return "\n".join(f"| {' | '.join(line)} |" for line in lines)
