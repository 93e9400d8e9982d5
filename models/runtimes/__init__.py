"""Runtimes, one file each: `load(bundle)` gives a `models.api.Runtime`."""
