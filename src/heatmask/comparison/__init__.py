"""Bundles, attribution methods and thresholds compared on one data set, in one report.

`subjects` lists what is scored, `entries` what makes heatmaps of it; `heatmaps` and `scores` keep
what they computed in a `store`, so that a second run computes nothing again.
"""
