"""Evaluation of a trained model; `python -m vitjax.evaluate`."""
