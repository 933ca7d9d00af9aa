"""A file in one of many formats to one array and affine."""
