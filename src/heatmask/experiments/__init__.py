"""Experiments on bundles: scores against reference masks, controls, comparison, retraining.

`cases` lists what is scored and `entries` what makes heatmaps; `scores` gives every rule's mask of
a heatmap its numbers, which `rows` put into one table. `one_bundle_page` renders the table of one
bundle, `page` that of many. What `compare` computes stays in a `store`, and is not computed again.
"""
