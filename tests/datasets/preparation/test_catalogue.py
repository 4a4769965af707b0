"""The catalogue against torchvision's constants and facts written by hand; every mistake in one has a sentence."""

import hashlib
import json
import re
from pathlib import PurePosixPath

import pytest
import torchvision.datasets as tv
import yaml

from clip.download import Expected
from dassl.data.datasets import DATASET_REGISTRY
from datasets.preparation.catalogue import SOURCES, ExpectedContent, content_digest, find_datasets, read_catalogue
from datasets.preparation.nodes import CatalogueError
from tests.datasets.preparation.official import split

CATALOGUE = read_catalogue()

FOLDERS = {  # registry name: folder, what has to be in it
    "ImageNet": ("imagenet", {"images/train", "images/val", "classnames.txt"}),
    "Caltech101": ("caltech-101", {"101_ObjectCategories", "split_zhou_Caltech101.json"}),
    "OxfordPets": ("oxford_pets", {"images", "annotations", "split_zhou_OxfordPets.json"}),
    "StanfordCars": ("stanford_cars", {"cars_train", "cars_test", "split_zhou_StanfordCars.json"}),
    "OxfordFlowers": (
        "oxford_flowers",
        {"jpg", "imagelabels.mat", "cat_to_name.json", "split_zhou_OxfordFlowers.json"},
    ),
    "Food101": ("food-101", {"images", "meta", "split_zhou_Food101.json"}),
    "FGVCAircraft": (
        "fgvc_aircraft",
        {
            "images",
            "images_variant_train.txt",
            "variants.txt",
            *(f"images_variant_{part}.txt" for part in ("val", "test")),
        },
    ),
    "SUN397": ("sun397", {"SUN397", "split_zhou_SUN397.json"}),
    "DescribableTextures": ("dtd", {"images", "split_zhou_DescribableTextures.json"}),
    "EuroSAT": ("eurosat", {"2750", "split_zhou_EuroSAT.json"}),
    "UCF101": ("ucf101", {"UCF-101-midframes", "split_zhou_UCF101.json"}),
    "ImageNetV2": ("imagenetv2", {"imagenetv2-matched-frequency-format-val"}),
    "ImageNetSketch": ("imagenet-sketch", {"images"}),
    "ImageNetA": ("imagenet-adversarial", {"imagenet-a"}),
    "ImageNetR": ("imagenet-rendition", {"imagenet-r"}),
}


def artefact(name, file):
    return next(each for each in CATALOGUE[name].artefacts if each.file == file)


def known(name):
    """Address to MD5 of all that a data set downloads."""
    return {source.address: source.expected.md5 for each in CATALOGUE[name].artefacts for source in each.sources}


def test_folders_are_those_of_the_readers():
    assert {name: entry.folder for name, entry in CATALOGUE.items()} == {
        name: DATASET_REGISTRY.get(name).dataset_dir for name in CATALOGUE
    }


def test_the_fifteen_data_sets():
    found = {
        name: (
            entry.folder,
            {p.to for each in entry.artefacts for p in each.places() if not p.optional},
        )
        for name, entry in CATALOGUE.items()
    }
    assert found == FOLDERS


def test_sizes_and_terms_are_stated():
    for entry in CATALOGUE.values():
        assert entry.licence
        assert entry.download > 0
        assert all(each.size or each.made for each in entry.artefacts)
    by_hand = [name for name, entry in CATALOGUE.items() if entry.access == "login"]
    assert by_hand == [name for name, entry in CATALOGUE.items() if entry.acknowledge] == ["ImageNet"]
    assert CATALOGUE["ImageNet"].manual
    assert CATALOGUE["EuroSAT"].download == 94280567 + 3006492


def test_what_comes_by_itself_has_a_digest_and_an_address_that_lasts():
    """A branch of a repository may change; a digest, or a revision in the address, notices."""
    for entry in CATALOGUE.values():
        for each in entry.primary:
            assert bool(each.sources) == (entry.access == "automatic")
            unknown = [source.address for source in each.sources if not source.expected.digest]
            assert unknown in ([], ["gdrive:10Jqome3vtUA2keJkNanAiFpgbyC9Hc2O"])
            assert all("/main/" not in source.address or source.expected.sha256 for source in each.sources)


def test_archives_are_no_larger_than_what_they_unpack_to_may_be():
    for entry in CATALOGUE.values():
        for each in entry.artefacts:
            assert not each.pieces or each.size <= 1.1 * each.unpacked


class TestTorchvision:
    """Addresses and MD5 sums that another project uses every day."""

    def test_pets(self):
        for url, md5 in tv.OxfordIIITPet._RESOURCES:
            assert known("OxfordPets")[url] == md5

    def test_flowers(self):
        for key in ("image", "label"):
            file, md5 = tv.Flowers102._file_dict[key]
            assert known("OxfordFlowers")[tv.Flowers102._download_url_prefix + file] == md5

    @pytest.mark.parametrize(("name", "kind"), [("Food101", tv.Food101), ("DescribableTextures", tv.DTD)])
    def test_food_and_textures(self, name, kind):
        assert known(name)[kind._URL] == kind._MD5

    def test_aircraft(self):
        assert tv.FGVCAircraft._URL in known("FGVCAircraft")

    def test_sun397(self):
        assert artefact("SUN397", "SUN397.tar.gz").copies[0].expected.md5 == tv.SUN397._DATASET_MD5

    @pytest.mark.parametrize(
        ("name", "kind", "module"), [("EuroSAT", tv.EuroSAT, "eurosat"), ("Caltech101", tv.Caltech101, "caltech")]
    )
    def test_what_is_written_in_the_code(self, name, kind, module, tmp_path, monkeypatch):
        asked = {}

        def note(url, *args, md5=None, **kwargs):
            asked[url] = md5

        monkeypatch.setattr(f"torchvision.datasets.{module}.download_and_extract_archive", note)
        with pytest.raises(Exception):  # noqa: B017, PT011  # nothing was downloaded, so it goes on to fail somehow
            kind(str(tmp_path), download=True)
        assert asked
        for url, md5 in asked.items():
            assert known(name).get(url) == md5

    def test_imagenet(self):
        for file, md5 in tv.imagenet.ARCHIVE_META.values():
            assert artefact("ImageNet", file).copies[0].expected.md5 == md5


def test_names_of_all_kinds():
    found = find_datasets(["DTD", "food-101", "imagenetv2", "EuroSAT", "eurosat"], CATALOGUE)
    assert [entry.name for entry in found] == ["DescribableTextures", "Food101", "ImageNetV2", "EuroSAT"]
    assert len(find_datasets(["all"], CATALOGUE)) == 15


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("food-10", "'food-10' is no data set; did you mean 'food101'?"),
        ("xyz", "'xyz' is no data set; did you mean "),
        ("shapes", "Nothing is downloaded for shapes; there are: ImageNet, "),
    ],
)
def test_unknown_names(name, hint):
    with pytest.raises(ValueError, match=re.escape(hint)):
        find_datasets(["EuroSAT", name], CATALOGUE)


def test_content_of_a_split_does_not_depend_on_how_it_is_written():
    tree = json.loads(split())
    compact = json.dumps({part: tree[part] for part in ("train", "val", "test")}, separators=(",", ":"))
    digest = hashlib.sha256(compact.encode()).hexdigest()
    assert content_digest(split().decode() + "\n", is_split=True) == digest
    assert content_digest(json.dumps(dict(reversed(tree.items()))), is_split=True) == digest
    assert content_digest("[1]", is_split=True) is content_digest('{"train": []}', is_split=True) is None
    assert content_digest("{", is_split=True) is None


def test_content_of_a_list_of_names():
    digest = hashlib.sha256(b"n01 a b\nn02 c").hexdigest()
    assert content_digest("n01 a b\r\nn02 c\r\n\r\n", is_split=False) == digest


def test_a_file_with_known_content_may_be_written_differently(tmp_path):
    path = tmp_path / "split.json"
    path.write_bytes(split() + b"\n")
    content = content_digest(split().decode(), is_split=True)
    expected = ExpectedContent(hashlib.sha256(split()).hexdigest(), content=content)
    assert Expected(expected.sha256).fault(path) is not None
    assert expected.fault(path) is None
    path.write_bytes(split("other"))
    assert (
        expected.fault(path)
        == f"SHA-256 {hashlib.sha256(split('other')).hexdigest()} where {expected.sha256} was expected"
    )
    path.write_bytes(b"\xff")
    assert ExpectedContent(content="abc").fault(path) == "content None where abc was expected"
    path.with_suffix(".txt").write_text("x\n")
    assert ExpectedContent(content=hashlib.sha256(b"x").hexdigest()).fault(path.with_suffix(".txt")) is None


ENTRY = """
Toy:
  folder: toy
  homepage: https://example.org
  licence: MIT
  artefacts:
  - file: toy.zip
    unpacked: 10
    copies:
    - {addresses: [https://example.org/toy.zip], sha256: %s}
    unpack:
    - {from: [toy/images], to: images}
""" % ("a" * 64)


ADDRESS, DIGEST = "https://example.org/toy.zip", f", sha256: {'a' * 64}"
SECOND = ENTRY.replace("Toy:", "Toy2:")
MISTAKES = [  # what of the entry is replaced, by what, and what is said then
    (ENTRY, "[1]", "{path}: must be a mapping with names as keys, got [1]."),
    (ENTRY, "a: [", "The catalogue {path} cannot be read (while parsing"),
    ("  licence: MIT\n", "", "{path}: Toy: licence is missing."),
    ("MIT", "5", "Toy: licence must be text, got 5 (numbers need quotes)."),
    ("folder: toy", "folder: a/b", "Toy: folder must be the name of one file or folder, got 'a/b'."),
    ("folder: toy", "folder: ..", "Toy: folder must be the name of one file or folder, got '..'."),
    ("folder:", "foulder:", "Toy: folder is missing."),
    ("  folder", "  size: 5\n  folder", "Toy: unknown key 'size'; known: access, acknowledge, artefacts, "),
    ("  artefacts:\n", "  artefacts: []\n  x:\n", "Toy: artefacts must be a list, got []."),
    ("unpacked: 10", "unpacked: -1", "Toy: artefacts[0]: unpacked must be a whole number of bytes, got -1."),
    ("    unpacked: 10\n", "", "artefacts[0]: needs unpacked, the bytes it has when unpacked, as a limit."),
    ("    copies:", "    made: imagenet_classnames\n    copies:", "artefacts[0]: needs either copies or made."),
    (DIGEST, ", md5: AB", "copies[0]: md5 must be 32 hexadecimal digits in small letters, got 'AB'."),
    (DIGEST, "", "copies[0]: needs sha256 or md5, or unknown: true where nobody has published one."),
    (
        ADDRESS,
        "file:///etc/passwd",
        "copies[0]: the address 'file:///etc/passwd' must begin with one of https://, ",
    ),
    (f"[{ADDRESS}]", "5", "copies[0]: addresses must be a list of texts, got 5 (numbers need quotes)."),
    ("to: images", "to: ../a", "unpack[0]: to must be a relative path without . and .., got '../a'."),
    ("to: images", "to: 2750", "unpack[0]: to must be a relative path without . and .., got 2750."),
    ("[toy/images]", "[/toy]", "unpack[0]: from must be a relative path without . and .., got '/toy'."),
    ("from: [toy/images], ", "", "unpack[0]: needs either from or rule."),
    ("from: [toy/images]", "rule: eval", "unpack[0]: rule must be one of imagenet_train, imagenet_val, got 'eval'."),
    ("to: images", "to: images, optional: 1", "unpack[0]: optional must be true or false, got 1."),
    (ENTRY, ENTRY + SECOND, "{path}: Toy and Toy2 have the same folder 'toy'."),
    (ENTRY, ENTRY + SECOND.replace("m: toy", "m: toy2"), "{path}: Toy and Toy2 have the same folder 'toy'."),
]


@pytest.mark.parametrize(("old", "new", "message"), MISTAKES)
def test_mistakes(tmp_path, old, new, message):
    path = tmp_path / "sources.yaml"
    assert old in ENTRY
    path.write_text(ENTRY.replace(old, new))
    with pytest.raises(CatalogueError) as caught:
        read_catalogue(path)
    assert message.replace("{path}", str(path)) in str(caught.value)


def test_a_catalogue_that_is_not_there(tmp_path):
    with pytest.raises(CatalogueError, match=r"The catalogue .*nothing\.yaml cannot be read \(.*No such file"):
        read_catalogue(tmp_path / "nothing.yaml")


def test_a_right_entry(tmp_path):
    path = tmp_path / "sources.yaml"
    path.write_text(ENTRY)
    (entry,) = read_catalogue(path).values()
    (each,) = entry.artefacts
    assert (entry.access, entry.acknowledge, each.size, each.sources[0].expected) == (
        "automatic",
        False,
        0,
        Expected("a" * 64),
    )


def test_the_catalogue_says_nothing_twice():
    """YAML lets a second key of the same name win silently."""
    text = SOURCES.read_text(encoding="utf-8")
    names = [line[:-1] for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    assert names == list(yaml.safe_load(text))
    for entry in CATALOGUE.values():
        files = [name for each in entry.artefacts for name in (each.file, *each.aliases)]
        assert len(files) == len(set(files))
        assert all(PurePosixPath(name).suffix for name in files)
