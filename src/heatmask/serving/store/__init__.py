"""Images and labels: what clients see of the studies, send and submit.

::

    store      the whole of it: versions of labels, conflicts
    images     studies, what was sent, by which names, leases
    host       the same as MONAI Label's `Datastore`
    labels     versions of labels in their folders
    sent       images that clients sent
    leases     who is at work on an image
    notes      what clients and strategies say of an image
    checks     what is accepted as a label or an image
    migrate    what earlier versions left in a work folder
    lock       one server works on a folder, no second one
    durable    folders and files that are whole or not there
    export     the current labels of a work folder, with a table

The truth lies in the files alone. They are read once, at the start; there is no index that could be
torn. In the folder of a store::

    sent/<id>/<name><ext>, about.json                          images that clients sent
    labels/<image>/<tag>/<number>/mask<ext>, about.json        a version, never changed
    about/<image>.json                                         notes on an image
    scores/<image>.json                                        what orders unlabelled images
    drafts/                                                    what is being written
    .lock                                                      held by the server at work here
"""

from heatmask.serving.store.labels import FINAL, ORIGINAL, Version
from heatmask.serving.store.store import Store

__all__ = ["FINAL", "ORIGINAL", "Store", "Version"]
