"""Answers about images over HTTP; `python -m vitjax.serve`."""
