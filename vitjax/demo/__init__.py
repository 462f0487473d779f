"""A local page to try a model; `python -m vitjax.demo`."""
