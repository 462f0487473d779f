"""Checkpoints: what is saved, verified, restored and kept."""
