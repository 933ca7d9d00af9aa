"""From a heatmap to a pseudo-mask, without any reference mask."""
