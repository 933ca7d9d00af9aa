"""The MONAI Label side: the only part of Heatmask that imports monailabel.

::

    server      start the server: index the studies, set the host up, hand out error texts
    app         the MONAI Label application: which bundles, which data store
    task        one request: options, scan in, pseudo-mask and facts out
    bundle      a MONAI Bundle, read once and built anew for every request
    options     the options panel: what a request may set, and to what
    datastore   the host's data store, with the user's own scans kept out of its reach
    studies     the flat folder of links that the host can list
    compat      what MONAI Label 0.8.5 needs before it can be imported

Importing this package makes monailabel importable.
"""

from heatmask.serving.compat import register_pydicom_alias

register_pydicom_alias()
