import re

import pytest
import torch
from PIL import Image

from dassl.config import get_cfg_default, merge_file
from tools import benchmark_loading
from tools.benchmark_loading import our_loader, plain_loader, report, write_photographs


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a").mkdir()
    write_photographs(tmp_path / "a", 12, 64, 48)
    return tmp_path / "a"


@pytest.fixture
def cfg():
    cfg = get_cfg_default()
    merge_file(cfg, str(benchmark_loading.CONFIG))
    cfg.VERBOSE, cfg.DATALOADER.NUM_WORKERS, cfg.DATALOADER.TRAIN_X.BATCH_SIZE = False, 0, 5
    return cfg


def run(capsys, *argv):
    code = benchmark_loading.main(["--batch", "4", "--workers", "0", "--repeats", "2", *argv])
    return code, capsys.readouterr()


def test_photographs_are_all_different_and_the_same_again(folder, tmp_path):
    paths = sorted(folder.glob("class_*/*.jpg"))
    assert len({path.read_bytes() for path in paths}) == len(paths) == 12
    with Image.open(paths[0]) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (64, 48))
    (tmp_path / "b").mkdir()
    write_photographs(tmp_path / "b", 12, 64, 48)
    again = sorted((tmp_path / "b").glob("class_*/*.jpg"))
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in paths]


def test_both_loaders_do_the_same_work(cfg, folder):
    ours, plain = our_loader(cfg, folder), plain_loader(cfg, folder)
    assert len(ours) == len(plain) == 2
    assert [(item.impath, item.label) for item in ours.dataset.data_source] == plain.dataset.samples
    for index in range(12):
        torch.manual_seed(index)
        mine = ours.dataset[index]
        torch.manual_seed(index)
        image, label = plain.dataset[index]
        assert mine["label"] == label
        assert image.shape == (3, 224, 224)
        torch.testing.assert_close(mine["img"], image, rtol=0, atol=1e-5)


def test_made_up_photographs_and_a_folder(folder, capsys):
    for argv, n in ((("--images", "9", "--size", "40", "30"), 9), (("--folder", str(folder)), 12)):
        code, printed = run(capsys, *argv)
        assert code == 0
        first, speeds, ratio = printed.out.splitlines()
        assert first.startswith(f"{n} images, batch 4, 0 workers, ")
        assert all(float(speed) > 0 for speed in re.findall(r"([\d.]+) images/s", speeds))
        assert re.fullmatch(r"ratio [\d.]+ \(median of 2, [\d.]+ to [\d.]+\)", ratio)
    assert len(list(folder.glob("class_*/*.jpg"))) == 12  # a given folder is not removed


def test_the_ratio_is_the_median_of_paired_ratios():
    assert report([(10, 20), (40, 20), (30, 30)]) == (
        "ours 30.0 images/s, plain 20.0 images/s\nratio 1.000 (median of 3, 0.500 to 2.000)"
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--repeats", "0"), "--repeats must be at least 1, got 0."),
        (("--workers", "-1"), "--workers must be at least 0, got -1."),
        (("--images", "3"), "holds 3 images, fewer than a batch of 4."),
        (("--size", "0", "9"), "--size must be a width and a height of at least 1, got 0 9."),
        (("--folder", "nowhere"), "--folder nowhere is no folder."),
    ],
)
def test_bad_values_are_named(capsys, argv, message):
    code, printed = run(capsys, *argv)
    assert code == 1
    assert message in printed.err
