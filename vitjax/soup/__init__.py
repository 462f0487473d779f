"""Averages the weights of trained models; `python -m vitjax.soup`."""
