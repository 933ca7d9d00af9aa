"""What is made of a bundle's answer: models that a client asks beside the bundle's own."""

from collections.abc import Mapping
from typing import Any

from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from heatmask.serving.task import HeatmapInferTask


class DerivedTask(InferTask):
    """A model of the host that leans on a bundle's own task.

    Parameters
    ----------
    base
        The bundle's own task.
    about
        What it does, before the bundle's description.
    labels, config
        As the host's.
    """

    kind: InferType

    def __init__(
        self,
        base: HeatmapInferTask,
        about: str,
        labels: Mapping[str, int],
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.base = base
        super().__init__(
            type=self.kind,
            labels=labels,
            dimension=3,
            description=f"{about} {base.description}",
            config=config,
        )

    @property
    def license_text(self) -> str:
        """What the weights may be used for."""
        return self.base.license_text

    def is_valid(self) -> bool:
        """Return True, as the bundle's own task."""
        return True

    def load(self) -> None:
        """Load the network."""
        self.base.load()

    def knows(self, request: Mapping[str, Any]) -> bool:
        """Return whether a request is likely to be answered without the network."""
        return self.base.knows(request)
