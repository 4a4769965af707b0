"""Small archives in the layouts of the official ones, and a catalogue that points at a server on this machine."""

from __future__ import annotations

import bz2
import copy
import gzip
import hashlib
import io
import json
import lzma
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import yaml
from PIL import Image
from scipy.io import savemat

from datasets.preparation.catalogue import SOURCES, content_digest

PACKERS = {"": lambda data: data, "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


def picture(number: int) -> bytes:
    """A JPEG of 8 x 8 pixels, another one for each number."""
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def pack_zip(files: Mapping[str, bytes], folders: tuple[str, ...] = ()) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in folders:
            archive.writestr(f"{name}/", b"")
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def pack_tar(files: Mapping[str, bytes], packer: str = "", folders: tuple[str, ...] = ()) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in folders:
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE
            archive.addfile(info)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o777
            archive.addfile(info, io.BytesIO(content))
    return PACKERS[packer](file.getvalue())


def pictures(*names: str) -> dict[str, bytes]:
    return {name: picture(number) for number, name in enumerate(names)}


def split(name: str = "n") -> bytes:
    items = {part: [[f"{part}.jpg", 0, name]] for part in ("train", "val", "test")}
    return json.dumps(items, indent=4).encode()


def caltech101() -> bytes:
    """A zip with a tar.gz in it, beside things that nobody needs."""
    inner = pictures(
        "101_ObjectCategories/accordion/image_0001.jpg",
        "101_ObjectCategories/BACKGROUND_Google/image_0001.jpg",
        "101_ObjectCategories/Faces/image_0001.jpg",
        "101_ObjectCategories/Faces_easy/image_0001.jpg",
    )
    files = {
        "caltech-101/101_ObjectCategories.tar.gz": pack_tar(inner, "gz", ("101_ObjectCategories",)),
        "caltech-101/Annotations.tar": pack_tar({"Annotations/accordion/annotation_0001.mat": b"MATLAB"}),
        "caltech-101/show_annotation.m": b"% MATLAB",
        "__MACOSX/caltech-101/._101_ObjectCategories.tar.gz": b"\0",
    }
    return pack_zip(files, ("caltech-101",))


def eurosat(top: str) -> bytes:
    return pack_zip(pictures(f"{top}/AnnualCrop/AnnualCrop_1.jpg", f"{top}/SeaLake/SeaLake_1.jpg"))


def aircraft() -> bytes:
    data = "fgvc-aircraft-2013b/data"
    lists = {f"{data}/images_variant_{part}.txt": b"0034309 707-320\n" for part in ("train", "val", "test")}
    files = pictures(f"{data}/images/0034309.jpg", f"{data}/images/0034958.jpg") | lists
    files |= {f"{data}/variants.txt": b"707-320\n", f"{data}/families.txt": b"Boeing 707\n"}
    files["fgvc-aircraft-2013b/evaluation.m"] = b"% MATLAB"
    return pack_tar(files, "gz")


def pets() -> tuple[bytes, bytes]:
    annotations = {
        "annotations/trainval.txt": b"Abyssinian_100 1 1 1\n",
        "annotations/trimaps/._Abyssinian_1.png": b"\0",
    }
    return pack_tar(pictures("images/Abyssinian_1.jpg"), "gz"), pack_tar(annotations, "gz")


def cars() -> bytes:
    """The mirror's zip, with a cache of pickles and a folder in a folder."""
    files = pictures("stanford_cars/cars_train/00001.jpg", "stanford_cars/cars_test/cars_test/00001.jpg")
    files["stanford_cars/split_fewshot/shot_1-seed_1.pkl"] = b"cos\nsystem\n"
    files["stanford_cars/cars_train/cache.pkl"] = b"cos\nsystem\n"
    files["stanford_cars/split_zhou_StanfordCars.json"] = split("car")
    return pack_zip(files)


def imagenet(classes: int = 3, each: int = 2) -> tuple[dict[str, bytes], list[str]]:
    """The three archives by name, and the class of each validation picture.

    `meta.mat` is as in the development kit: a struct array, inner nodes of the tree behind the leaves.
    """
    wnids = [f"n{number:08d}" for number in range(1, classes + 1)]
    train = {f"{wnid}.tar": pack_tar(pictures(*(f"{wnid}_{number}.JPEG" for number in range(each)))) for wnid in wnids}
    labels = [(3 * number) % classes for number in range(classes * each)]
    val = pictures(*(f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, len(labels) + 1)))
    archives = {
        "ILSVRC2012_devkit_t12.tar.gz": devkit(wnids, [label + 1 for label in labels]),
        "ILSVRC2012_img_val.tar": pack_tar(val),
        "ILSVRC2012_img_train.tar": pack_tar(train),
    }
    return archives, [wnids[label] for label in labels]


def meta(wnids: list[str]) -> bytes:
    """meta.mat: ids count from 1 in another order than the names'; one inner node at the end."""
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")]
    rows = [(number, wnid, "a name, another", "what it is", 0) for number, wnid in enumerate(wnids, 1)]
    rows.append((len(wnids) + 1, "n99999999", "entity", "all there is", len(wnids)))
    file = io.BytesIO()
    savemat(file, {"synsets": np.array(rows, dtype=kind)[:, None]})
    return file.getvalue()


def devkit(wnids: list[str], labels: list[int], matlab: bytes | None = None) -> bytes:
    top = "ILSVRC2012_devkit_t12"
    files = {
        f"{top}/readme.txt": b"Development kit",
        f"{top}/data/meta.mat": meta(wnids) if matlab is None else matlab,
        f"{top}/data/ILSVRC2012_validation_ground_truth.txt": "".join(f"{label}\n" for label in labels).encode(),
        f"{top}/evaluation/demo_eval.m": b"% MATLAB",
    }
    return pack_tar(files, "gz")


def write_sources(path: Path, name: str, files: Mapping[str, bytes | list[bytes]], url: str) -> Path:
    """The real entry of a data set, with the digests and sizes of other bytes, all to come from `url`.

    Args:
        files: by file name the bytes, or a list with those of each copy (served as <file>, <file>.2, ...). Artefacts
            that are not named are left out.
    """
    entry = copy.deepcopy(yaml.safe_load(SOURCES.read_text(encoding="utf-8"))[name])
    entry["artefacts"] = [each for each in entry["artefacts"] if each["file"] in files or "made" in each]
    for artefact in entry["artefacts"]:
        contents = files.get(artefact["file"], [])
        contents = [contents] if isinstance(contents, bytes) else contents
        for number, (each, content) in enumerate(zip(artefact.get("copies", []), contents, strict=False), 1):
            if each.get("addresses"):
                each["addresses"] = [f"{url}/{artefact['file']}{f'.{number}' if number > 1 else ''}"]
            for key, value in _facts(content).items():
                if key in each:
                    each[key] = value
            if "content" in artefact:
                artefact["content"] = content_digest(content.decode(), is_split=True)
        if "copies" in artefact:
            artefact["copies"] = artefact["copies"][: len(contents)]
        if "unpacked" in artefact:
            artefact["unpacked"] = 1_000_000
    path.write_text(yaml.safe_dump({name: entry}, sort_keys=False), encoding="utf-8")
    return path


def _facts(content: bytes) -> dict[str, object]:
    digests = {kind: hashlib.new(kind, content).hexdigest() for kind in ("sha256", "md5")}
    return {"size": len(content), **digests}


def tree(folder: Path) -> list[str]:
    """Files below a folder, without locks."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if not name.endswith(".lock"))
