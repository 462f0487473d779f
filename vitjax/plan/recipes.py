"""Plans of all shipped recipes as one table."""

from collections.abc import Iterator

from vitjax import checks
from vitjax.config import resolving, shipped
from vitjax.plan import planning, table
from vitjax.plan.memory import size


def plans(
  topology: str | None, log
) -> Iterator[tuple[str, planning.Plan | str]]:
  """File name of each recipe and its plan, or why there is none.

  Recipes have their default options. Their data need not be here.
  """
  for name in shipped.summaries():
    log(name)
    try:
      run = resolving.resolve(shipped.load(name), checks.problems)
      yield name, planning.make_plan(run, topology=topology, log=log)
    except (ValueError, OSError, RuntimeError, ImportError) as e:
      yield name, f"{type(e).__name__}: {str(e).strip().splitlines()[0][:80]}"


def row(name: str, plan: planning.Plan | str) -> str:
  """A row of the table."""
  if isinstance(plan, str):
    return f"{name:24} {plan}"
  used = plan.compiled.used_bytes if plan.compiled else plan.shape_bytes
  limit = plan.limit_bytes or (plan.compiled and plan.compiled.limit_bytes)
  verdict = {True: "fits", False: "does not fit", None: "unknown"}[plan.fits]
  advice = f": {table.advice(plan)}" if plan.fits is False else ""
  return (
    f"{name:24} {plan.parameters / 1e6:8.1f}M {plan.batch_size:6,} "
    f"{size(used):>12} {size(limit) if limit else '':>12}  {verdict}{advice}"
  )


HEAD = f"{'recipe':24} {'parameters':>9} {'batch':>5} {'needs':>12} {'of':>12}"
