"""Whether an installation works; `python -m vitjax.doctor`."""
