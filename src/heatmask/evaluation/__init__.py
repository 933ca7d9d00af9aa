"""Metrics of masks, slices and classes, with intervals over patients."""
