"""What others have published: never mixed with what is measured here, for nothing is comparable.

From abstracts unless said otherwise; other data, other splits, often by slice.
"""

from typing import NamedTuple


class Published(NamedTuple):
    """One published number."""

    method: str
    data: str
    number: str
    source: str
    caveat: str


PUBLISHED = (
    Published(
        "GP-UNet, GP-ShuffleUNet, GP-ReconResNet", "BraTS, 2D slices",
        "median Dice 0.728 [0.715, 0.739], F1 0.93, accuracy among tumours 98.7 %",
        "Chatterjee et al., Neurocomputing 682:133460, 2026 (arXiv 2206.05148)",
        "split by slice, not by patient; median over slices with a tumour; threshold offsets "
        "appear to be chosen on test masks (their code)",
    ),
    Published(
        "Relevance maps of a 3D classifier", "BraTS, 3D", "Dice 0.44, against 0.11 for Grad-CAM",
        "Rajapaksa and Khalvati 2022 (arXiv 2111.14953)", "preprint's figures",
    ),
    Published(
        "FLAIR threshold, no learning", "BraTS", "Dice 0.738", "arXiv 2109.06023",
        "threshold chosen on the test masks",
    ),
    Published("Superpixels", "BraTS 2020, 2D", "Dice 0.691", "arXiv 2209.09930", "2D slices"),
    Published(
        "Diffusion counterfactual", "BraTS 2021, 2D", "Dice 0.706", "arXiv 2308.02062", "2D slices"
    ),
    Published(
        "CLISC", "BraTS 2020, FLAIR, 3D, split by patient", "Dice 0.856", "arXiv 2501.16246",
        "threshold and checkpoint chosen on validation masks; the true slice label gates the map "
        "(their code)",
    ),
    Published(
        "GAN priors", "BraTS 2020, 2D slices", "Dice 0.793, 0.887 after bad cases were dropped",
        "Scientific Reports, 2025", "2D slices",
    ),
    Published(
        "AME-CAM", "BraTS 2021, FLAIR slices", "Dice 0.862",
        "Chen et al., MICCAI 2023 (arXiv 2306.14505)",
        "hand-listed slices dropped (their code); the number was not read again for this page",
    ),
    Published(
        "Supervised U-Net", "the LGG set used here, FLAIR, 22-fold cross-validation by patient",
        "Dice 0.82, median 0.85", "Buda et al., Comput. Biol. Med. 109, 2019",
        "trained on the masks of all other patients",
    ),
    Published(
        "Supervised network of MONAI's model zoo", "BraTS 2018, 3D", "Dice 0.903",
        "brats_mri_segmentation bundle", "trained on masks; four sequences",
    ),
    Published(
        "ResNet with guided backprop", "Decathlon brain tumours, slices",
        "named among the most efficient and effective methods",
        "Nikulins et al., J. Imaging 11(2):55, 2025", "the abstract names no control",
    ),
    Published(
        "Grad-CAM, retraining on filtered images", "2D slices",
        "heatmaps find part of the tumour; dark regions contribute too",
        "Guan and Loew, AIPR 2021 (arXiv 2201.02771)",
        "the abstract names no control of equal area",
    ),
)  # fmt: skip
