"""How long a save stops the steps, and whether what is restored is the same."""

from scripts.bench import checkpoints

_TINY = {"width": 32, "depth": 1, "num_heads": 2, "mlp_dim": 64}


def run(case: str, tiny: bool) -> dict:
  del case
  rows = checkpoints.measure(1 if tiny else 3, **(_TINY if tiny else {}))
  facts = {f"{x['contestant']}_seconds": x["seconds"]["median"] for x in rows}
  return {"megabytes": rows[0]["megabytes"], **facts}
