"""Configs: the schema, and the flags that set it."""
