"""Accuracy against speed; `python -m vitjax.pareto`."""
