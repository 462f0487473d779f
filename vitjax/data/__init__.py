"""Input: sources of examples, preprocessing, batches, feeding devices."""
