"""The MONAI Label side: the only part of Heatmask that imports monailabel.

::

    server      start the server: index the studies, put the parts together, listen
    web         the web application: MONAI Label's protocol, jobs, bounds, the page
    access      who may use it
    app         the MONAI Label application: which bundles, which order of samples
    task        one request: options, scan in, pseudo-mask and facts out
    interactive one request: strokes or clicks in, the corrected mask out
    corrections what is kept from one stroke or click to the next
    bundle      a MONAI Bundle, read once and built anew for every request
    options     the options panel: what a request may set, and to what
    store       images and versions of their labels
    log         plain for people, JSON for machines
    studies     the flat folder of links to the studies
    compat      what MONAI Label 0.8.5 needs before it can be imported

Importing this package makes monailabel importable.
"""

from heatmask.serving.compat import register_pydicom_alias

register_pydicom_alias()
