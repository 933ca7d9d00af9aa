"""Relevance maps: the network, the supervoxels' scores and the perturbation loss."""

from pathlib import Path

import pytest
import torch
from monai.utils import set_determinism
from torch import Tensor, nn
from torch.nn import functional as F

from heatmask.attribution import Explainer
from heatmask.attribution.inherent import ExplainedClassifier
from heatmask.networks.relevance_net import RelevanceNet
from heatmask.training.checkpoints import load_best
from heatmask.training.relevance import PerturbationLoss, RelevanceDataset

LESION = (slice(3, 8), slice(4, 9), slice(1, 3))


def make_net(**options: object) -> RelevanceNet:
    torch.manual_seed(0)
    shape = {"features": (4, 6), "localiser_features": (4, 6), "pool_size": (2, 2, 1)}
    return RelevanceNet(**{**shape, **options}).eval()


class Bright(nn.Module):
    """Logit 4 with a lesion of value 2 of 50 voxels, -4 without: it counts bright voxels."""

    def forward(self, images: Tensor) -> Tensor:
        return (images[:, :1] - 1).clamp_min(0).flatten(2).sum(-1) * 8 / 50 - 4


def make_blocks() -> list[dict[str, Tensor]]:
    image = torch.zeros(1, 12, 14, 4)
    image[:, 1:-1, 1:-1] = 1.0
    ill = image.clone()
    ill[0][LESION] = 2.0
    return [
        {"image": ill, "label": torch.tensor(0.5)},
        {"image": image, "label": torch.tensor(0.0)},
        {"image": torch.zeros_like(image), "label": torch.tensor(0.25)},
    ]


def draw_lesion() -> Tensor:
    mask = torch.zeros(1, 12, 14, 4)
    mask[0][LESION] = 1
    return mask


@pytest.mark.parametrize("size", [(16, 12, 4), (9, 13, 5), (8, 8, 1)])
def test_the_map_lies_on_the_images_grid(size: tuple[int, ...]) -> None:
    network = make_net(in_channels=2, num_classes=3)
    assert isinstance(network, ExplainedClassifier)
    images = torch.rand(2, 2, *size)
    logits, relevance = network.forward_heatmap(images)
    assert logits.shape == (2, 3)
    assert relevance.shape == (2, 3, *size)
    torch.testing.assert_close(logits, network(images))


def test_other_methods_explain_the_classifier_alone() -> None:
    network, images = make_net(), torch.rand(2, 1, 12, 12, 4)
    for method, layer in (("grad_cam", "classifier.stage1"), ("saliency", None)):
        _, whole = Explainer(method, layer)(network, images)
        inner = layer and layer.partition(".")[2]
        _, alone = Explainer(method, inner)(network.classifier, images)
        torch.testing.assert_close(whole, alone)


def test_a_supervoxels_score_is_its_share_of_the_largest_drop() -> None:
    dataset = RelevanceDataset(make_blocks(), Bright(), segments=60)
    ill, healthy, empty = dataset.scores
    lesion = draw_lesion().bool()
    assert ill.max() == 1
    assert (ill[~lesion] == 0).float().mean() > 0.9, "a few supervoxels hold some of both"
    assert (ill[lesion] > 0).all()
    assert not healthy.any(), "by its label"
    assert not empty.any()
    item = dataset[0]
    torch.testing.assert_close(item["label"][:1], ill.float())
    torch.testing.assert_close(item["label"][1:], item["image"])
    assert len(dataset) == 3


def lose(relevance: Tensor, block: int = 0, **weights: float) -> Tensor:
    image = make_blocks()[block]["image"][None]
    target = torch.cat([draw_lesion()[None] * (block == 0), image], dim=1)
    weights = {"agreement": 0.0, "area": 0.0, **weights}
    return PerturbationLoss(Bright(), **weights)(relevance, target)


def test_the_loss_by_hand() -> None:
    lesion, ever = 40 * draw_lesion()[None] - 20, torch.full((1, 1, 12, 14, 4), 20.0)
    sure = torch.tensor(4.0).sigmoid()
    left, none = F.softplus(torch.tensor(4.0)) * sure, F.softplus(torch.tensor(-4.0)) * sure
    torch.testing.assert_close(lose(-ever), left, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(lose(lesion), none, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(lose(ever), none, rtol=1e-4, atol=1e-5)
    head = 10 * 12 * 4
    area = lose(lesion, area=1.0) - lose(lesion)
    torch.testing.assert_close(area, torch.tensor(50 / head), rtol=1e-3, atol=1e-5)
    assert lose(lesion, agreement=1.0) - lose(lesion) == pytest.approx(0, abs=1e-4)
    assert lose(-lesion, agreement=1.0) - lose(-lesion) == pytest.approx(20, rel=1e-3)


def test_a_healthy_block_has_next_to_nothing_to_lose() -> None:
    assert lose(torch.full((1, 1, 12, 14, 4), -20.0), block=1) < 0.001


@pytest.mark.parametrize("weights", [{"agreement": 0.0}, {"agreement": 1.0}])
def test_training_finds_the_lesion(weights: dict[str, float]) -> None:
    """By the perturbation alone, and with the supervoxels' scores."""
    set_determinism(0)
    network = make_net()
    loss = PerturbationLoss(Bright(), area=0.3, **weights)
    dataset = RelevanceDataset(make_blocks(), Bright(), segments=60)
    images = torch.stack([dataset[i]["image"] for i in range(2)])
    target = torch.stack([dataset[i]["label"] for i in range(2)])
    optimizer = torch.optim.Adam(network.localiser.parameters(), 0.03)
    network.localiser.train()
    for _ in range(80):
        optimizer.zero_grad()
        loss(network.localiser(images), target).backward()
        optimizer.step()
    found = network.localiser(images).detach() > 0
    set_determinism(None)
    lesion = draw_lesion().bool()
    dice = 2 * (found[0] & lesion).sum() / (found[0].sum() + lesion.sum())
    assert dice > 0.8
    assert found[1].float().mean() < 0.02


def test_the_loss_leaves_the_classifier_alone() -> None:
    classifier = make_net().classifier.train()
    loss = PerturbationLoss(classifier)
    image = make_blocks()[0]["image"][None].requires_grad_()
    loss(torch.zeros(1, 1, 12, 14, 4, requires_grad=True), torch.cat([image, image], 1)).backward()
    assert all(p.grad is None and p.requires_grad for p in classifier.parameters())
    assert classifier.training


def test_the_best_checkpoint_is_taken(tmp_path: Path) -> None:
    best, other = make_net(), make_net()
    nn.init.zeros_(other.classifier.fc.weight)
    torch.save({"model": best.state_dict(), "epoch": 3, "metrics": {}}, tmp_path / "best.pt")
    assert load_best(tmp_path / "best.pt", other) is other
    torch.testing.assert_close(other.classifier.fc.weight, best.classifier.fc.weight)
