"""The web application: what MONAI Label's clients ask for, and nothing else.

::

    application   the routes put together, and what stands before them
    serving       what all routes share: models, store, jobs, who was here
    connections   closed where no request comes
    limits        how much a client may send
    uploads       what it sends, streamed to private files that are gone with the request
    volumes       what a file claims and holds, before anybody reads its voxels
    messages      typed requests, and the sentence that refuses a wrong one
    errors        errors to status and text, without a path of the server
    requestlog    one line a request; what nobody foresaw gets a number
    jobs          work in the background: a bounded queue, progress, stopping
    inference     one inference as a job, awaited while its client is there
    batch         batch inference
    sessions      scans that a client sent for a while
    routes/       info and samples, datastore, inference, sessions, batch, jobs, health
    page          the page at /
"""

from heatmask.serving.web.application import create_app
from heatmask.serving.web.connections import Connection
from heatmask.serving.web.limits import Limits
from heatmask.serving.web.serving import Serving

__all__ = ["Connection", "Limits", "Serving", "create_app"]
