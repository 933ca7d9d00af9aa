"""Tables of labels: CSV to rows, images by the paths they name."""
