"""Models as graphs that other programs run: ONNX and StableHLO."""
