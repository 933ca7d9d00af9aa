"""Scans and labels: finding, reading, recognising, checking."""
