"""Scores of masks and of slice probabilities, floors without learning, tables and figures.

`protocol.evaluate_cases` scores, `report.write_evaluation` writes down.
"""
