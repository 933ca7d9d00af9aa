"""Classifiers and their checkpoints."""
