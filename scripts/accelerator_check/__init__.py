"""Checks and measurements on an accelerator; see accelerator_check.sh."""
