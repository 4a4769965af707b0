import io
import pickle
import random
import sys
import tarfile
import types
import zipfile

import pytest

from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum, build_dataset


def test_datum(image_paths):
    item = Datum(impath=image_paths[0], label=3, domain=1, classname="red star")
    assert (item.impath, item.label, item.domain, item.classname) == (image_paths[0], 3, 1, "red star")
    with pytest.raises(AttributeError):
        item.label = 4
    bare = Datum(image_paths[0])
    assert (bare.label, bare.domain, bare.classname) == (0, 0, "")


def test_datum_keeps_the_layout_that_other_code_stores(image_paths):
    item = Datum(image_paths[0], 3, 1, "red star")
    assert (Datum.__module__, Datum.__name__) == ("dassl.data.datasets.base_dataset", "Datum")
    assert vars(item) == {"_impath": image_paths[0], "_label": 3, "_domain": 1, "_classname": "red star"}
    assert vars(pickle.loads(pickle.dumps(item))) == vars(item)  # workers send instances about


def test_datum_of_a_missing_or_odd_path(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'No image at ".*gone.png"; check the data root'):
        Datum(str(tmp_path / "gone.png"))
    with pytest.raises(ValueError, match="impath must be a str, got a PosixPath"):
        Datum(tmp_path)


def test_properties_and_names_come_from_train_x(make_data):
    train, val, test = make_data([2, 0, 1, 2]), make_data([0]), make_data([1, 5])
    data = DatasetBase(train_x=train, val=val, test=test)
    assert data.train_x is train
    assert data.train_u is None
    assert data.val is val
    assert data.test is test
    assert data.num_classes == 3
    assert data.lab2cname == {0: "class 0", 1: "class 1", 2: "class 2"}
    assert data.classnames == ["class 0", "class 1", "class 2"]


def test_empty_or_missing_training_images():
    with pytest.raises(TypeError, match="DatasetBase gave no train_x; pass the list"):
        DatasetBase(test=[])
    with pytest.raises(ValueError, match=r"DatasetBase found no training image; check DATASET\.ROOT"):
        DatasetBase(train_x=[])


def test_label_gaps_name_the_missing_labels(make_data):
    with pytest.raises(
        ValueError, match="DatasetBase has training images with labels up to 4 but none with label 0, 3; number"
    ):
        DatasetBase(train_x=make_data([4, 1, 2]), test=[])
    with pytest.raises(ValueError, match="with label 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, …;"):
        DatasetBase(train_x=make_data([30]), test=[])
    with pytest.raises(ValueError, match="training images with negative labels; labels start at 0"):
        DatasetBase(train_x=make_data([0, -1, 1]))


def test_statics_accept_gaps(make_data):
    items = make_data([4, 1])
    assert DatasetBase.get_num_classes(items) == 5
    assert DatasetBase.get_lab2cname(items) == ({1: "class 1", 4: "class 4"}, ["class 1", "class 4"])


def test_one_label_with_two_names_takes_the_first(image_paths):
    items = [Datum(image_paths[0], 0, 0, "first"), Datum(image_paths[1], 0, 0, "second")]
    assert DatasetBase.get_lab2cname(items) == ({0: "first"}, ["first"])


class TwoDomains(DatasetBase):
    domains = ["photo", "sketch"]  # noqa: RUF012


def test_domains(make_data):
    data = TwoDomains(train_x=make_data([0]))
    data.check_input_domains(["photo"], ["sketch"])
    with pytest.raises(ValueError, match=r"TwoDomains needs source and target domains, got \['photo'\] and \[\]"):
        data.check_input_domains(["photo"], [])
    with pytest.raises(ValueError, match=r"TwoDomains has the domains \['photo', 'sketch'\], got 'clip'"):
        data.is_input_domain_valid(["clip"])


def test_splits_keep_the_order_of_first_appearance(make_data):
    items = make_data([2, 0, 2, 1], domains=[1, 0, 1, 1])
    data = DatasetBase(train_x=items)
    by_label = data.split_dataset_by_label(items)
    assert list(by_label) == [2, 0, 1]
    assert by_label[2] == [items[0], items[2]]
    assert by_label[99] == []  # a defaultdict
    by_domain = data.split_dataset_by_domain(items)
    assert list(by_domain) == [1, 0]
    assert by_domain[1] == [items[0], items[2], items[3]]


# ---- few-shot


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_few_shot_picks_are_those_of_random_sample(make_data, seed):
    train, val = make_data([2] * 9 + [0] * 7 + [1] * 8 + [2] * 3), make_data([1] * 5 + [0] * 6)
    random.seed(seed)
    got_train = DatasetBase.generate_fewshot_dataset(train, num_shots=4)
    got_val = DatasetBase.generate_fewshot_dataset(val, num_shots=2)

    oracle = random.Random(seed)
    expected = []
    for label in (2, 0, 1):
        expected += oracle.sample([item for item in train if item.label == label], 4)
    expected_val = []
    for label in (1, 0):
        expected_val += oracle.sample([item for item in val if item.label == label], 2)
    assert list(map(id, got_train)) == list(map(id, expected))
    assert list(map(id, got_val)) == list(map(id, expected_val))


def test_few_shot_positions_depend_on_counts_only(make_data):
    items = make_data([0] * 20)
    random.seed(5)
    got = DatasetBase.generate_fewshot_dataset(items, num_shots=3)
    random.seed(5)
    assert [items.index(item) for item in got] == random.sample(range(20), 3)


def test_few_shot_shapes(make_data):
    a, b = make_data([0, 0, 1]), make_data([0])
    assert DatasetBase.generate_fewshot_dataset(a, num_shots=0) is a
    assert DatasetBase.generate_fewshot_dataset(a, b) == (a, b)
    both = DatasetBase.generate_fewshot_dataset(a, b, num_shots=1)
    assert [len(part) for part in both] == [2, 1]
    assert isinstance(both, list)


def test_short_class_is_taken_whole_without_a_draw(make_data, capsys):
    items = make_data([0, 1, 1, 1, 2, 2])
    random.seed(1)
    got = DatasetBase.generate_fewshot_dataset(items, num_shots=3)
    assert [item.label for item in got] == [0, 1, 1, 1, 2, 2]
    after = random.random()
    oracle = random.Random(1)
    oracle.sample(range(3), 3)
    assert after == oracle.random()
    assert capsys.readouterr().out.splitlines() == [
        "Creating a 3-shot dataset",
        "Warning: 2 of 3 classes have fewer than 3 images (fewest: 'class 0' with 1); they are taken whole.",
    ]


def test_short_class_with_repetition(make_data, capsys):
    items = make_data([0, 0])
    random.seed(1)
    got = DatasetBase.generate_fewshot_dataset(items, num_shots=5, repeat=True)
    assert [items.index(item) for item in got] == random.Random(1).choices(range(2), k=5)
    assert "drawn with repetition" in capsys.readouterr().out


def test_build_dataset(cfg, register, make_data, capsys):
    class ToyForBuild(DatasetBase):
        def __init__(self, cfg):
            super().__init__(train_x=make_data([0, 1]), test=make_data([0]))

    register(ToyForBuild)
    cfg.DATASET.NAME = "ToyForBuild"
    cfg.VERBOSE = True
    assert isinstance(build_dataset(cfg), ToyForBuild)
    assert capsys.readouterr().out == "Loading dataset: ToyForBuild\n"
    cfg.DATASET.NAME = "ToyForBuilds"
    with pytest.raises(ValueError, match=r"'ToyForBuilds' does not exist; .*do you mean 'ToyForBuild'"):
        build_dataset(cfg)
    assert "ToyForBuild" in DATASET_REGISTRY.registered_names()


# ---- download and unpacking


@pytest.fixture
def data(make_data):
    return DatasetBase(train_x=make_data([0]))


def _tar(path, *members):
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as tar:
        for name, link, kind in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            info.linkname = link
            content = b"" if link else b"content"
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "zip"])
def test_download_and_unpack(data, tmp_path, ending):
    source = tmp_path / f"source.{ending}"
    if ending == "zip":
        with zipfile.ZipFile(source, "w") as zipped:
            zipped.writestr("toy/a.txt", "content")
    else:
        _tar(
            source,
            ("toy/a.txt", "", tarfile.REGTYPE),
            ("toy/sub/b.txt", "../a.txt", tarfile.SYMTYPE),
            ("toy/c.txt", "toy/a.txt", tarfile.LNKTYPE),
        )
    dst = tmp_path / "root" / f"copy.{ending}"
    data.download_data(source.as_uri(), str(dst), from_gdrive=False)
    assert (tmp_path / "root" / "toy" / "a.txt").read_text() == "content"
    if ending != "zip":
        assert (tmp_path / "root" / "toy" / "sub" / "b.txt").read_text() == "content"
        assert (tmp_path / "root" / "toy" / "c.txt").read_text() == "content"


@pytest.mark.parametrize(
    "member",
    [
        ("/etc/evil", "", tarfile.REGTYPE),
        ("../evil", "", tarfile.REGTYPE),
        ("a/../../evil", "", tarfile.REGTYPE),
        ("C:/evil", "", tarfile.REGTYPE),
        ("link", "/etc/passwd", tarfile.SYMTYPE),
        ("a/link", "../../evil", tarfile.SYMTYPE),
        ("link", "../evil", tarfile.LNKTYPE),
    ],
)
def test_archive_that_leaves_its_folder(data, tmp_path, member):
    _tar(tmp_path / "source.tar", member)
    with pytest.raises(ValueError, match=r"copy.tar would write outside of its folder, to .*do not trust"):
        data.download_data((tmp_path / "source.tar").as_uri(), str(tmp_path / "root" / "copy.tar"), from_gdrive=False)
    assert not (tmp_path / "evil").exists()
    assert {p.name for p in (tmp_path / "root").iterdir()} == {"copy.tar"}


@pytest.mark.parametrize("name", ["/evil", "../evil", "a\\..\\..\\evil"])
def test_zip_that_leaves_its_folder(data, tmp_path, name):
    with zipfile.ZipFile(tmp_path / "source.zip", "w") as zipped:
        zipped.writestr("good.txt", "")
        zipped.writestr(name, "")
    with pytest.raises(ValueError, match=r"copy.zip would write outside of its folder"):
        data.download_data((tmp_path / "source.zip").as_uri(), str(tmp_path / "root" / "copy.zip"), from_gdrive=False)
    assert {p.name for p in (tmp_path / "root").iterdir()} == {"copy.zip"}


@pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz"])
def test_damaged_archive(data, tmp_path, ending):
    (tmp_path / "source").write_bytes(b"no archive at all")
    with pytest.raises(ValueError, match=rf"Cannot unpack .*copy.{ending} .*delete it and download it again"):
        data.download_data((tmp_path / "source").as_uri(), str(tmp_path / f"copy.{ending}"), from_gdrive=False)


def test_unknown_ending_is_told_before_the_download(data, tmp_path):
    with pytest.raises(NotImplementedError, match=r"can unpack .zip, .tar and .tar.gz, got .*copy.rar"):
        data.download_data("file:///nowhere", str(tmp_path / "copy.rar"), from_gdrive=False)


def test_google_drive_goes_through_gdown(data, tmp_path, monkeypatch):
    calls = []
    fake = types.ModuleType("gdown")
    fake.download = lambda url, dst, quiet: calls.append((url, dst))
    monkeypatch.setitem(sys.modules, "gdown", fake)
    with pytest.raises(RuntimeError, match=r"gdown could not fetch ID; download it by hand and put it at .*copy.tar"):
        data.download_data("ID", str(tmp_path / "copy.tar"))
    assert calls == [("ID", str(tmp_path / "copy.tar"))]
