"""Check a run against reference curves; `python -m vitjax.compare`."""

from vitjax.compare.comparison import Comparison, Metric, compare

__all__ = ["Comparison", "Metric", "compare"]
