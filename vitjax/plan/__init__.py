"""Memory, FLOPs and steps of a run; `python -m vitjax.plan`."""
