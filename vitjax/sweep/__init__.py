"""Trains a small grid of settings; `python -m vitjax.sweep`."""
