"""What nnInteractive's clients send and get: 3D Slicer's and napari's, and scripts.

::

    messages   what they say, as types; and the edits that it means
    leases     who edits, and for how long
    editor     one image and one object in it
    arrays     images and masks as they travel
    grid       where an array lies that came without an affine

The protocol is that of nninteractive-client 2.6; `heatmask.serving.web.routes.nninteractive` has
its addresses.
"""
