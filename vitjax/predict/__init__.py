"""Classify images; `python -m vitjax.predict`."""
