"""The dashboard: a process of its own that only reads."""
