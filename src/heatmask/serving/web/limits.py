"""How much a client may send, and how long its work may take."""

from dataclasses import dataclass

from heatmask.errors import HeatmaskError

MB = 10**6


class TooLargeError(HeatmaskError):
    """What a client sent is larger than the server takes."""


@dataclass(frozen=True)
class Limits:
    """Bounds of one request.

    Attributes
    ----------
    file_bytes
        Of a file as it is sent, which may be compressed.
    unpacked_bytes
        Of a file without its compression.
    edited_voxels
        Voxels of an image that is corrected.
    kept_voxels, editors
        Voxels of all such images at once, and how many clients of nnInteractive have one.
    idle_s, liveness_s
        How long one of them is kept without an edit, and how long without a sign of life.
    voxels, axis
        Voxels of an image or a label, and those along one axis.
    text_bytes
        Of everything in a request that is no file.
    silence_s
        How long a client may send nothing in the middle of a request.
    seconds
        How long an inference may take, the time in the queue not counted.
    queue
        Requests that wait for their turn; the next one is sent away.
    session_s
        How long what a client sent is kept while it is not used.
    """

    file_bytes: int = 1_000 * MB
    unpacked_bytes: int = 2_000 * MB
    edited_voxels: int = 64_000_000
    kept_voxels: int = 200_000_000
    editors: int = 16
    idle_s: float = 3600.0
    liveness_s: float = 60.0
    voxels: int = 300_000_000
    axis: int = 4096
    text_bytes: int = MB
    silence_s: float = 60.0
    seconds: float = 900.0
    queue: int = 16
    session_s: float = 12 * 3600.0
