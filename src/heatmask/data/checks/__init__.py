"""Whether the voxels can be what they are said to be."""
