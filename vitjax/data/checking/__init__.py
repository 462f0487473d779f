"""Checks a data set before a run; see `check.check`."""
