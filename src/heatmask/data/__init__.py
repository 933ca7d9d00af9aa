"""Scans and labels: finding, reading, recognising, and the synthetic head."""
