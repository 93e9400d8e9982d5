"""Encoders, one file each: `Config` and `Encoder`."""
