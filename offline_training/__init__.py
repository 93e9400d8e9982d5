"""Recordings turned into a model bundle."""
