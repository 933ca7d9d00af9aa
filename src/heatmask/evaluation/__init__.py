"""Metrics that more than the experiments need: of a mask, and of a ranking of slices."""
