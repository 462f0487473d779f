"""Meshes and sharding, several processes, preemption."""
