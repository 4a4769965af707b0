"""Measure how fast training images are loaded, beside plain torchvision: images a second, and the ratio.

    python -m tools.benchmark_loading                        # 2000 made-up photographs, 8 worker processes
    python -m tools.benchmark_loading --folder data/caltech-101/101_ObjectCategories   # a folder of class folders
    python -m tools.benchmark_loading --workers 2 --repeats 15

"Ours" is the loader of a training run: repeatable whatever the number of workers, upright, replacing damaged images on
request. "Plain" is torchvision's `ImageFolder` in torch's `DataLoader`. Both read the same files with the transforms of
configs/trainers/CoOp/vit_b16_ep50.yaml (random crop resized to 224 px, bicubic; flip; normalise), the batch size and
the number of workers. They take turns, pass by pass over all images, after one pass each that is not counted, so that a
busy machine slows both; the figure is the median of the paired ratios. Above 1, ours is faster.

The made-up photographs have the spectrum of real ones (amplitude falls as 1/frequency) and about their size as JPEG;
how long decoding takes depends on that. They are drawn from a fixed seed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2
from tqdm import tqdm
from yacs.config import CfgNode

from dassl.config import get_cfg_default, merge_file
from dassl.data.data_manager import build_data_loader
from dassl.data.datasets import Datum
from dassl.data.transforms import INTERPOLATION_MODES, build_transform

CONFIG = Path(__file__).resolve().parent.parent / "configs/trainers/CoOp/vit_b16_ep50.yaml"
N_CLASSES = 10  # folders of made-up photographs
N_FIELDS = 16  # noise fields that they are cut from


def write_photographs(folder: Path, n: int, width: int, height: int) -> None:
    """Fill class folders with `n` JPEGs of 1/f noise."""
    rng = np.random.default_rng(0)
    fields = [_noise(rng, width, height) for _ in range(N_FIELDS)]
    for i in tqdm(range(n), desc="photographs", disable=None):
        top, left = rng.integers(height), rng.integers(width)
        pixels = np.roll(fields[i % N_FIELDS], (top, left), axis=(0, 1))  # the noise is periodic: no edges appear
        path = folder / f"class_{i % N_CLASSES}" / f"{i:05}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path, quality=90)


def _noise(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """A field [height, width, 3] of bytes."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf  # no mean
    white = rng.standard_normal((4, height, width))
    field = np.fft.irfft2(np.fft.rfft2(white) / frequency, s=(height, width))
    channels = field[0] + 0.3 * field[1:]  # [3, height, width]; colours of photographs go together
    return (120 + 55 * channels / channels.std()).clip(0, 255).astype(np.uint8).transpose(1, 2, 0).copy()


def our_loader(cfg: CfgNode, folder: Path) -> DataLoader:
    """The loader of a training run over a folder of class folders."""
    source = ImageFolder(str(folder))
    items = [Datum(path, label, classname=source.classes[label]) for path, label in source.samples]
    node = cfg.DATALOADER.TRAIN_X
    return build_data_loader(cfg, node.SAMPLER, items, node.BATCH_SIZE, tfm=build_transform(cfg), stream="train_x")


def plain_loader(cfg: CfgNode, folder: Path) -> DataLoader:
    """What one writes with torchvision alone."""
    given, workers = cfg.INPUT, cfg.DATALOADER.NUM_WORKERS
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(
                given.SIZE, scale=given.RRCROP_SCALE, interpolation=INTERPOLATION_MODES[given.INTERPOLATION]
            ),
            v2.RandomHorizontalFlip(),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(given.PIXEL_MEAN, given.PIXEL_STD),
        ]
    )
    return DataLoader(
        ImageFolder(str(folder), transform),
        cfg.DATALOADER.TRAIN_X.BATCH_SIZE,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


def images_per_second(loader: Iterable) -> float:
    """Of one pass."""
    begin, images = time.perf_counter(), 0
    for batch in loader:
        images += len(batch["img"] if isinstance(batch, dict) else batch[0])
    return images / (time.perf_counter() - begin)


def compare(ours: DataLoader, plain: DataLoader, repeats: int) -> list[tuple[float, float]]:
    """Images a second of both, `repeats` times, in alternating order."""
    pairs = []
    for i in tqdm(range(-1, repeats), desc="passes", disable=None):
        order = (ours, plain) if i % 2 == 0 else (plain, ours)
        speed = {loader: images_per_second(loader) for loader in order}
        if i >= 0:  # the first pass starts the workers and fills the file cache
            pairs.append((speed[ours], speed[plain]))
    return pairs


def report(pairs: list[tuple[float, float]]) -> str:
    ours, plain = (statistics.median(speeds) for speeds in zip(*pairs, strict=True))
    ratios = sorted(a / b for a, b in pairs)
    return (
        f"ours {ours:.1f} images/s, plain {plain:.1f} images/s\n"
        f"ratio {statistics.median(ratios):.3f} (median of {len(ratios)}, {ratios[0]:.3f} to {ratios[-1]:.3f})"
    )


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--folder", type=Path, help="folder of class folders of images (default: made-up photographs, removed after)")
    add("--images", type=int, default=2000, help="how many photographs to make up (default: 2000)")
    add("--size", type=int, nargs=2, default=(500, 375), metavar=("WIDTH", "HEIGHT"), help="theirs (default: 500 375)")
    add("--workers", type=int, default=8, help="loading processes; 0: load in this one (default: 8)")
    add("--batch", type=int, default=32, help="images a batch (default: 32)")
    add("--repeats", type=int, default=9, help="passes of each that count (default: 9)")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    cfg = get_cfg_default()
    merge_file(cfg, str(CONFIG))
    cfg.VERBOSE, cfg.SEED = False, 1
    cfg.DATALOADER.NUM_WORKERS, cfg.DATALOADER.TRAIN_X.BATCH_SIZE = args.workers, args.batch
    try:
        for name, least in (("images", 1), ("batch", 1), ("repeats", 1), ("workers", 0)):
            if getattr(args, name) < least:
                raise ValueError(f"--{name} must be at least {least}, got {getattr(args, name)}.")
        if min(args.size) < 1:
            raise ValueError(f"--size must be a width and a height of at least 1, got {args.size[0]} {args.size[1]}.")
        if args.folder is not None and not args.folder.is_dir():
            raise ValueError(f"--folder {args.folder} is no folder.")
        with tempfile.TemporaryDirectory() as made:
            folder = args.folder or Path(made)
            if args.folder is None:
                write_photographs(folder, args.images, *args.size)
            ours, plain = our_loader(cfg, folder), plain_loader(cfg, folder)
            images = len(plain.dataset)
            if len(plain) == 0:
                raise ValueError(f"{folder} holds {images} images, fewer than a batch of {args.batch}.")
            print(f"{images} images, batch {args.batch}, {args.workers} workers, {os.cpu_count()} CPUs")
            print(report(compare(ours, plain, args.repeats)))
    except (ValueError, OSError, RuntimeError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
