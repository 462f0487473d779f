"""The rows of a check as text, here and in docs/performance.md."""

from scripts.accelerator_check import attention, families, networks


def say(row: dict) -> None:
  """Prints a line when a part ends."""
  text = row.get("reason") or ""
  print(
    f"{row['part']:26} {row['status']:8} {row['seconds']:6.1f} s  {text}",
    flush=True,
  )


def markdown(rows: list[dict]) -> str:
  """All tables; cells of parts that have no figure are empty."""
  found = {x["part"]: x for x in rows}
  single = [_result(x) for x in rows if x["part"].split()[0] in _SINGLE]
  tables = [
    *([_table(("part", "result", "seconds"), single)] if single else []),
    _networks(found),
    _table(
      (
        "attention, forward and backward",
        *("plain, ms", "fused, ms", "ratio", "plain's error", "fused's"),
      ),
      [_attention(x, found) for x in attention.CASES],
    ),
    _table(
      ("train step of", "float32's error", "bfloat16's error"),
      [_family(x, found) for x in families.CASES],
    ),
  ]
  return "\n\n".join(tables)


_SINGLE = ("doctor", "tests", "feed", "checkpoint", "resume", "input")
_HIDDEN = ("part", "tiny", "status", "seconds", "environment", "said", "reason")


def _result(row: dict) -> tuple:
  facts = "; ".join(
    f"{name.replace('_', ' ')} {x:.4g}"
    for name, x in row.items()
    if name not in _HIDDEN
  )
  text = row.get("reason") or " ".join(row.get("said", ())) or facts
  status = "" if row["status"] == "ok" else f"{row['status']}: "
  return row["part"], f"{status}{text}", f"{row['seconds']:.0f}"


def _networks(found: dict[str, dict]) -> str:
  """Our rows beside timm's: rates, compile time, memory."""
  rows = []
  for name in networks.NETWORKS:
    for kind, who in (
      ("networks", "vitjax"),
      ("timm", "timm"),
      ("timm_compiled", "timm, compiled"),
    ):
      row = found.get(f"{kind} {name}", {})
      rows.append(
        (
          name,
          who,
          _number(row, "train", "{:,.0f}"),
          _number(row, "forward", "{:,.0f}"),
          _number(row, "matrix_tflops", "{:.0f}"),
          _number(row, "compile_seconds", "{:.0f}"),
          _gib(row, "peak_bytes"),
          _gib(row, "planned_bytes"),
          _gib(row, "estimated_bytes"),
          row.get("reason", ""),
        )
      )
  head = (
    *("network", "", "train, images / s", "forward, images / s"),
    *(
      "TFLOP/s of products",
      "compile, s",
      "peak, GiB",
      "planned",
      "estimated",
      "",
    ),
  )
  return _table(head, rows)


def _attention(case: str, found: dict[str, dict]) -> tuple:
  row = found.get(f"attention {case}", {})
  errors = (
    f"{max(row[name]):.1e}" if name in row else ""
    for name in ("plain_errors", "fused_errors")
  )
  return (
    f"{case} tokens {row.get('reason', '')}".strip(),
    _number(row, "plain_ms", "{:.3g}"),
    _number(row, "fused_ms", "{:.3g}"),
    _number(row, "times_plain", "{:.2f}"),
    *errors,
  )


def _family(case: str, found: dict[str, dict]) -> tuple:
  row = found.get(f"families {case}", {})
  return (
    f"{case} {row.get('reason', '')}".strip(),
    _number(row, "float32_error", "{:.1e}"),
    _number(row, "bfloat16_error", "{:.1e}"),
  )


def _number(row: dict, name: str, shape: str) -> str:
  value = row.get(name)
  if isinstance(value, dict):
    value = value["median"]
  return "" if value is None else shape.format(value)


def _gib(row: dict, name: str) -> str:
  return f"{row[name] / 2**30:.2f}" if row.get(name) else ""


def _table(head, rows) -> str:
  lines = [head, ["---"] * len(head), *rows]
  return "\n".join(f"| {' | '.join(line)} |" for line in lines)
