"""Training classifiers from slice labels alone."""
