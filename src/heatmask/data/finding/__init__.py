"""The scans that a path stands for."""
