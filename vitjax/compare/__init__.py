"""Check a run against reference curves; `python -m vitjax.compare`."""

from vitjax.compare.band import Metric
from vitjax.compare.comparison import Comparison, compare

__all__ = ["Comparison", "Metric", "compare"]
