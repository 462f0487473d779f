"""RandAugment."""

OPS = {}
