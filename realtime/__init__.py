"""Chunks turned into windows; the session that runs the model on them, records and publishes."""
