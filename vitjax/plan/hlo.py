"""Traffic of a compiled program, between devices and with their memory."""

import math
import re
from collections.abc import Mapping, Sequence

_KINDS = (
  "all-reduce",
  "all-gather",
  "reduce-scatter",
  "all-to-all",
  "collective-permute",
)
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
_COLLECTIVE = re.compile(rf" = (.*?) ({'|'.join(_KINDS)})(-start)?\(")
_CALL = re.compile(r"(?:to_apply|calls)=%?([\w.-]+)")
_WHILE = re.compile(r" while\(.*condition=%?([\w.-]+), body=%?([\w.-]+)")
_TRIP_COUNT = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_ARRAY = re.compile(r"\b(pred|[a-z]+(\d+)\w*)\[([\d,]*)\](\{[^}]*\})?")
_INSTRUCTION = re.compile(
  r"\s+(?:ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*)$"
)
_COMMENT = re.compile(r"/\*.*?\*/")


def collectives(text: str) -> dict[str, dict[str, int]]:
  """Kind -> number of collectives that run, and the bytes of their results.

  A collective in a loop counts as often as the loop runs, or once if that is
  not known.

  Args:
    text: the text of a program, `compiled.as_text()`.
  """
  entry, bodies = _computations(text)
  totals: dict[str, dict[str, int]] = {}

  def visit(computation: str, times: int) -> None:
    for line in bodies.get(computation, ()):
      if match := _COLLECTIVE.search(line):
        result, kind, start = match.groups()
        sizes = [size for size, _ in _arrays(result)]
        total = totals.setdefault(kind, {"count": 0, "bytes": 0})
        total["count"] += times
        # The shape of an asynchronous one also has its operands and flags.
        total["bytes"] += times * (max(sizes) if start else sum(sizes))
      for callee in _CALL.findall(line):
        visit(callee, times)
      if loop := _WHILE.search(line):
        trips = _trips(line, bodies[loop[1]], bodies[loop[2]])
        visit(loop[2], times * trips)

  visit(entry, 1)
  return dict(sorted(totals.items()))


# Instructions that read and write nothing.
_FREE = {
  "bitcast",
  "conditional",
  "constant",
  "get-tuple-element",
  "parameter",
  "tuple",
  "while",
}


def memory_share(text: str) -> float:
  """The share of bytes accessed that are in a device's memory, 0 .. 1.

  Compilers for TPUs from v5e on keep arrays in the memory of the chip (VMEM)
  and copy others to it ahead of their use. Their cost analysis counts those
  accesses like those of the device's memory (HBM). The share is by the sizes
  of operands and results, loops counted once.

  Args:
    text: the text of a program, `compiled.as_text()`.
  """
  entry, bodies = _computations(text)
  accesses: list[tuple[int, bool]] = []

  def visit(computation: str) -> None:
    arrays: dict[str, list[tuple[int, bool]]] = {}
    for line in bodies.get(computation, ()):
      if loop := _WHILE.search(line):
        visit(loop[2])
      if not (match := _INSTRUCTION.match(_COMMENT.sub("", line))):
        continue
      name, result, operation, rest = match.groups()
      made = arrays[name] = _arrays(result)
      if operation in _FREE or operation.endswith("-done"):
        continue
      operands = re.findall(r"%([\w.-]+)", rest.partition("), ")[0])
      used = [x for operand in operands for x in arrays.get(operand, ())]
      if operation == "slice-start":  # reads as much as it writes
        used, made = [], [(made[1][0], made[0][1]), made[1]]
      elif operation.endswith("-start"):
        made = made[:1]
      accesses.extend((*used, *made))

  visit(entry)
  total = sum(size for size, _ in accesses)
  on_chip = sum(size for size, is_on_chip in accesses if is_on_chip)
  return 1 - on_chip / total if total else 1.0


def _computations(text: str) -> tuple[str, Mapping[str, Sequence[str]]]:
  """The name of the main computation; the lines of each by its name."""
  found: dict[str, list[str]] = {}
  name = entry = ""
  for line in text.splitlines():
    if match := _COMPUTATION.match(line):
      name = match[2]
      entry = name if match[1] else entry
      found[name] = []
    elif name:
      found[name].append(line)
  return entry, found


def _trips(loop: str, condition: Sequence[str], body: Sequence[str]) -> int:
  """How often a loop runs: what the compiler says, or counts up to.

  Compilers for TPUs do not say. There `condition` is `counter < constant`, and
  `body` adds a constant to the counter, which starts at 0.
  """
  if known := _TRIP_COUNT.search(loop):
    return int(known[1])
  below = _operation(condition, r"ROOT .*")
  compared = below and re.search(
    r" compare\(%?([\w.-]+), %?([\w.-]+)\), direction=LT", below
  )
  if not compared:
    return 1
  place = re.search(
    r" get-tuple-element\(.*?\), index=(\d+)",
    _operation(condition, compared[1]),
  )
  end = _constant(condition, compared[2])
  root = re.search(r" tuple\((.*?)\)", _operation(body, r"ROOT .*"))
  if not (place and end and root):
    return 1
  values = root[1].split(", ")
  added = re.search(
    r" add\(%?[\w.-]+, %?([\w.-]+)\)",
    _operation(body, values[int(place[1])].split("%")[-1]),
  )
  by = added and _constant(body, added[1])
  return math.ceil(end / by) if by else 1


def _operation(lines: Sequence[str], name: str) -> str:
  """The line that defines `name`, or starts with that pattern; or ""."""
  start = name if name.startswith("ROOT") else rf"(ROOT )?%?{re.escape(name)} ="
  matches = (line for line in lines if re.match(rf"\s*{start}", line))
  return _COMMENT.sub("", next(matches, ""))


def _constant(lines: Sequence[str], name: str) -> int | None:
  match = re.search(r" constant\((\d+)\)", _operation(lines, name))
  return int(match[1]) if match else None


def _arrays(text: str) -> list[tuple[int, bool]]:
  """The bytes of each array of a type, and whether it is on the chip."""
  found = []
  for kind, bits, shape, layout in _ARRAY.findall(text):
    count = math.prod(int(n) for n in shape.split(",") if n)
    size = count * (1 if kind == "pred" else int(bits) // 8)
    found.append((size, "S(1)" in layout))
  return found
