"""The files of a run: records written and read, progress, history."""
