"""A classifier beside a U-Net that learns which voxels the classifier's decision rests on.

Rajapaksa and Khalvati, "Relevance maps: A weakly supervised segmentation method for 3D brain
tumours in MRIs", Frontiers in Radiology 2:1061402, 2022 (preprint arXiv 2111.14953).
"""

from collections.abc import Sequence

from monai.networks.nets import UNet
from monai.utils import ensure_tuple_rep
from torch import Tensor, nn

from heatmask.networks.cnn import CNN
from heatmask.networks.global_pooling import crop_to, pad_to_multiple


class RelevanceNet(nn.Module):
    """A CNN that classifies and a U-Net whose output is the relevance of every voxel.

    The two share nothing: the classifier is trained on labels and then held fixed, the U-Net on
    what the classifier loses without the voxels that it points to (see
    `heatmask.training.relevance`). So ``classifier.stage1``, ... are target layers for CAM methods,
    and every attribution method explains the classifier alone.

    Parameters
    ----------
    spatial_dims, in_channels, num_classes, norm, top_fraction, pool_size
        As of `heatmask.networks.cnn.CNN`; the U-Net shrinks its grid by `pool_size` too.
    features, localiser_features
        Channels of each stage of the CNN, and of each level of the U-Net.
    """

    def __init__(
        self,
        spatial_dims: int = 3,
        in_channels: int = 1,
        num_classes: int = 1,
        features: Sequence[int] = (8, 16, 32, 64),
        localiser_features: Sequence[int] = (8, 16, 32, 64),
        norm: str = "batch",
        top_fraction: float = 1.0,
        pool_size: int | Sequence[int] = 2,
    ) -> None:
        super().__init__()
        self.classifier = CNN(
            spatial_dims, in_channels, num_classes, features, norm, top_fraction, pool_size
        )
        self.localiser = Localiser(
            spatial_dims, in_channels, num_classes, localiser_features, pool_size
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, K) of an image batch (B, C, *spatial)."""
        return self.classifier(x)

    def forward_heatmap(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits (B, K) and the relevance (B, K, *spatial).

        The relevance has logits of its own: above 0 the decision rests on a voxel.
        """
        return self.classifier(x), self.localiser(x)


class Localiser(nn.Module):
    """MONAI's U-Net for images of any size: (B, C, *spatial) to (B, K, *spatial)."""

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        num_classes: int,
        features: Sequence[int],
        pool_size: int | Sequence[int],
    ) -> None:
        super().__init__()
        sizes, steps = ensure_tuple_rep(pool_size, spatial_dims), len(features) - 1
        self.multiples = [size**steps for size in sizes]
        self.body = UNet(
            spatial_dims,
            in_channels,
            num_classes,
            channels=features,
            strides=[sizes] * steps,
            act="relu",
            norm="batch",
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the map on the images' grid."""
        return crop_to(self.body(pad_to_multiple(x, self.multiples)), list(x.shape[2:]))
