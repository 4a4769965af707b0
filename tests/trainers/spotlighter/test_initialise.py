"""The bank's start, and what an untrained head does to zero-shot CLIP on the embedded benchmark."""

import numpy as np
import pytest
import torch

import train
from clip.backbone import LabelSpace, load_backbone
from dassl.data.datasets import Datum
from datasets.shapes.domains import CLASS_NAMES, DOMAINS
from trainers.spotlighter import Spotlighter
from trainers.spotlighter.initialise import (
    best_tokens,
    images_of_classes,
    initial_prototypes,
    of_class,
    some_images,
)

CLUSTERS = torch.tensor([[0.0, 0, 0, 8], [9.0, 0, 0, 0], [0.0, 7, 0, 0]])  # far apart, [3, 4]


def clustered(seed):
    """Six images of two classes, three tokens each; a token is a cluster's centre and a little noise."""
    noise = 0.01 * torch.randn(6, 3, 4, generator=torch.Generator().manual_seed(seed))
    shift = torch.tensor([0.0, 0, 0, 1, 1, 1])[:, None, None] * 100
    return CLUSTERS + shift + noise, torch.tensor([0, 0, 0, 1, 1, 1])


def test_kmeans_finds_each_classs_own_clusters():
    rows, label = clustered(0)
    bank = initial_prototypes(rows, images_of_classes(label, None, 2, 1), (2, 3, 4), 3, "kmeans", 1)
    for c in range(2):
        expected = rows[label == c].mean(dim=0).numpy()
        found = bank[c].numpy()
        order = [int(np.abs(found - centre).sum(axis=1).argmin()) for centre in expected]
        assert sorted(order) == [0, 1, 2]
        np.testing.assert_allclose(found[order], expected, atol=1e-4)


def test_random_rows_have_the_mean_norm_of_activated_tokens():
    rows, label = clustered(1)
    bank = initial_prototypes(rows, images_of_classes(label, None, 2, 1), (2, 3, 4), 2, "random", 5)
    expected = np.linalg.norm(rows[:, :2].numpy(), axis=2).mean()
    np.testing.assert_allclose(np.linalg.norm(bank.numpy(), axis=2), expected, rtol=1e-5)
    assert not torch.equal(
        bank, initial_prototypes(rows, images_of_classes(label, None, 2, 1), (2, 3, 4), 2, "random", 6)
    )


def test_a_class_with_few_tokens_takes_next_best_ones():
    rows = torch.arange(24.0).view(1, 6, 4)
    assert of_class(rows, 2, 5).shape == (5, 4)  # one image, two activated tokens, five prototypes
    assert of_class(rows, 2, 2).shape == (2, 4)
    assert of_class(rows.expand(3, -1, -1), 2, 5).shape == (6, 4)  # three images have enough


def pictures(name, part, per_class, classes):
    """Normalised pictures of a domain, [n, 3, 64, 64], and labels counted from 0."""
    labels = np.repeat(classes, per_class)
    pixels = DOMAINS[name].pictures(part, labels, np.tile(np.arange(per_class), len(classes)))
    cfg = train.setup_cfg(train.parse_args([])).INPUT
    mean, std = (torch.tensor(values)[:, None, None] for values in (cfg.PIXEL_MEAN, cfg.PIXEL_STD))
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    return (images - mean) / std, torch.from_numpy(labels - classes[0])


@pytest.fixture(scope="module")
def untrained():
    """Spotlighter around zero-shot CLIP, default options, its bank filled from three pictures of each base class."""
    cfg = train.setup_cfg(train.parse_args(["TRAINER.SPOTLIGHTER.HOST", "ZeroshotCLIP"]))
    space = LabelSpace(CLASS_NAMES[:72], "Shapes")
    method = Spotlighter.make_method(cfg, load_backbone("Mini-ViT/8"), space).eval()
    images, label = pictures("Shapes", "train", 3, np.arange(72))
    rows = best_tokens(method, images, 5)
    memory = method.head.memory
    memory.fill(
        initial_prototypes(
            rows,
            images_of_classes(label, None, len(memory.prototypes), 1),
            tuple(memory.prototypes.shape),
            5,
            "kmeans",
            1,
        )
    )
    return method


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, 72], ids=["base", "new"])
@pytest.mark.parametrize("name", DOMAINS)
def test_an_untrained_head_is_within_one_point_of_zero_shot(untrained, name, first):
    images, label = pictures(name, "test", 8, np.arange(first, first + 72))
    space = LabelSpace(CLASS_NAMES[first : first + 72], name)
    with torch.no_grad():
        logits, zero_shot = untrained(images, space), untrained.host(images, space)
    assert (logits - zero_shot).abs().max() > 0  # the gate is open
    accuracies = [100 * float((x.argmax(dim=1) == label).float().mean()) for x in (logits, zero_shot)]
    assert accuracies[0] == pytest.approx(accuracies[1], abs=1.0)
    assert accuracies[1] > 30


def test_a_class_that_the_teacher_never_names_gets_its_best_images():
    label, scores = torch.tensor([0, 0, 2]), torch.tensor([[3.0, 1.0, 0.0], [3.0, 2.0, 0.0], [0.0, 0.5, 2.0]])
    members = images_of_classes(label, scores, 3, least=2)
    assert [m.tolist() for m in members] == [[0, 1], [1, 0], [2, 0]]  # ties keep their order
    assert [m.tolist() for m in images_of_classes(label, None, 3, least=2)] == [[0, 1], [], [2]]


@pytest.mark.parametrize("labelled", [True, False])
def test_the_pass_is_bounded(labelled, monkeypatch):
    monkeypatch.setattr("trainers.spotlighter.initialise.IMAGES_PER_CLASS", 3)
    source = [Datum(impath=__file__, label=min(i, 1)) for i in range(11)]  # one image of class 0, ten of class 1
    kept = some_images(source, 2, labelled, seed=1)
    assert len(kept) == (4 if labelled else 6)
    assert len(some_images(source[:6], 2, False, seed=1)) == 6
    places = [source.index(item) for item in kept]
    assert places == sorted(places)
    assert kept == some_images(source, 2, labelled, seed=1)
    if labelled:
        assert sum(item.label == 0 for item in kept) == 1
