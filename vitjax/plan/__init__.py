"""What a run needs, before it starts; `python -m vitjax.plan`."""
