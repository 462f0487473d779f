"""An HTML page of runs; `python -m vitjax.report`."""
