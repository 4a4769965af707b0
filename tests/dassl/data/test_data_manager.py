import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as T

from dassl.data import DataManager, DatasetWrapper
from dassl.data.datasets import DatasetBase


@pytest.fixture
def use(cfg, register, make_data):
    """use(train_x=…, test=…): make cfg point to a data set of these labels."""

    def make(train_x=(0, 1, 2) * 4, train_u=None, val=None, test=(0, 1, 2)):
        class ToyForManager(DatasetBase):
            def __init__(self, cfg):
                lists = {"train_x": train_x, "train_u": train_u, "val": val, "test": test}
                super().__init__(**{k: v if v is None else make_data(list(v)) for k, v in lists.items()})

        register(ToyForManager)
        cfg.DATASET.NAME = "ToyForManager"
        cfg.DATALOADER.TRAIN_X.BATCH_SIZE = 4
        cfg.DATALOADER.TEST.BATCH_SIZE = 2

    return make


def test_loaders_and_properties(cfg, use):
    use(val=(0, 1, 2, 0, 1))
    cfg.DATASET.SOURCE_DOMAINS = ("a", "b")
    manager = DataManager(cfg)
    assert manager.num_classes == 3
    assert manager.num_source_domains == 2
    assert manager.lab2cname == {0: "class 0", 1: "class 1", 2: "class 2"}
    assert manager.dataset.classnames == ["class 0", "class 1", "class 2"]
    assert (len(manager.train_loader_x), len(manager.val_loader), len(manager.test_loader)) == (3, 3, 2)
    assert manager.train_loader_u is None
    assert [len(b["label"]) for b in manager.val_loader] == [2, 2, 1]
    assert [b["index"].tolist() for b in manager.test_loader] == [[0, 1], [2]]
    assert manager.train_loader_x.dataset.is_train
    assert not manager.test_loader.dataset.is_train


@pytest.mark.parametrize("val", [None, ()])
def test_no_validation_images(cfg, use, val):
    use(val=val)
    assert DataManager(cfg).val_loader is None


def test_no_test_images(cfg, use):
    for test in (None, ()):
        use(test=test)
        with pytest.raises(ValueError, match=r"ToyForManager gave no test image; check DATASET\.ROOT"):
            DataManager(cfg)


def test_unlabelled_images(cfg, use):
    use(train_u=(0,) * 12)
    cfg.DATALOADER.TRAIN_U.BATCH_SIZE = 6
    manager = DataManager(cfg)
    assert manager.train_loader_u.batch_size == 4
    orders = [
        [i for b in loader for i in b["index"].tolist()] for loader in (manager.train_loader_x, manager.train_loader_u)
    ]
    assert orders[0] != orders[1]  # equally long, yet not in step
    cfg.DATALOADER.TRAIN_U.SAME_AS_X = False
    assert DataManager(cfg).train_loader_u.batch_size == 6


def test_batch_larger_than_the_data(cfg, use):
    use(train_x=(0, 1, 2))
    cfg.DATALOADER.TRAIN_X.BATCH_SIZE = 100
    batches = list(DataManager(cfg).train_loader_x)
    assert [len(batch["label"]) for batch in batches] == [3]


def test_label_gaps_are_named(cfg, use):
    use(train_x=(0, 2))
    with pytest.raises(ValueError, match=r"ToyForManager has training images .* none with label 1"):
        DataManager(cfg)


def test_summary(cfg, use, capsys):
    use(train_x=(0, 1) * 600, train_u=(0,) * 5)
    cfg.DATASET.SOURCE_DOMAINS, cfg.DATASET.TARGET_DOMAINS = ("photo", "clip"), ("sketch",)
    manager = DataManager(cfg)
    assert capsys.readouterr().out == ""
    manager.show_dataset_summary(cfg)
    rows = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()[1:-1]]
    assert rows == [
        ["Dataset", "ToyForManager"],
        ["Source", "photo,", "clip"],
        ["Target", "sketch"],
        ["#", "classes", "2"],
        ["#", "train_x", "1,200"],
        ["#", "train_u", "5"],
        ["#", "test", "3"],
    ]
    cfg.VERBOSE = True
    DataManager(cfg)
    assert "# train_x  1,200" in capsys.readouterr().out


def test_custom_transforms(cfg, use, capsys):
    use()
    small, large = (T.Compose([T.Resize((n, n)), T.ToTensor()]) for n in (4, 8))
    manager = DataManager(cfg, custom_tfm_train=[small, large], custom_tfm_test=large)
    assert capsys.readouterr().out.splitlines() == [
        "Using a custom transform for training",
        "Using a custom transform for test",
    ]
    train, test = next(iter(manager.train_loader_x)), next(iter(manager.test_loader))
    assert train["img"].shape == (4, 3, 4, 4)
    assert train["img2"].shape == (4, 3, 8, 8)
    assert "img3" not in train
    assert test["img"].shape == (2, 3, 8, 8)


def test_custom_wrapper(cfg, use):
    class Mine(torch.utils.data.Dataset):
        def __init__(self, cfg, data_source, transform=None, is_train=False):
            self.data_source = data_source
            self.is_train = is_train

        def __len__(self):
            return len(self.data_source)

        def __getitem__(self, index):
            return {"label": self.data_source[index].label, "train": self.is_train}

    use()
    manager = DataManager(cfg, dataset_wrapper=Mine)
    assert next(iter(manager.train_loader_x))["train"].tolist() == [True] * 4
    assert set(next(iter(manager.test_loader))) == {"label", "train"}


# ---- one image


@pytest.fixture
def items(make_data):
    return make_data([1, 0], domains=[2, 0])


def test_item(cfg, items):
    wrapper = DatasetWrapper(cfg, items, transform=T.ToTensor())
    item = wrapper[0]
    assert {key: item[key] for key in item if key != "img"} == {
        "label": 1,
        "domain": 2,
        "impath": items[0].impath,
        "index": 0,
    }
    pixels = np.asarray(Image.open(items[0].impath)).transpose(2, 0, 1) / np.float32(255)
    assert (item["img"].numpy() == pixels).all()
    assert len(wrapper) == 2


def test_item_without_transform_is_a_picture(cfg, items):
    image = DatasetWrapper(cfg, items)[1]["img"]
    assert isinstance(image, Image.Image)
    assert (np.asarray(image) == np.asarray(Image.open(items[1].impath))).all()


def test_list_of_transforms_sees_one_raw_image(cfg, items):
    seen = []
    first = lambda image: seen.append(image) or torch.zeros(1)  # noqa: E731
    item = DatasetWrapper(cfg, items, transform=(first, first, first))[0]
    assert {key for key in item if key.startswith("img")} == {"img", "img2", "img3"}
    assert seen[0] is seen[1] is seen[2]


def test_img0(cfg, items):
    cfg.DATALOADER.RETURN_IMG0 = True
    cfg.INPUT.SIZE = (6, 10)
    cfg.INPUT.INTERPOLATION = "bicubic"
    raw = Image.open(items[0].impath).resize((10, 6), Image.Resampling.BICUBIC)
    plain = torch.from_numpy(np.asarray(raw).transpose(2, 0, 1) / np.float32(255))
    item = DatasetWrapper(cfg, items, transform=T.ToTensor())[0]
    assert torch.equal(item["img0"], plain)
    cfg.INPUT.TRANSFORMS = ("normalize",)
    mean, std = (torch.tensor(v)[:, None, None] for v in (cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD))
    item = DatasetWrapper(cfg, items, transform=T.ToTensor())[0]
    torch.testing.assert_close(item["img0"], (plain - mean) / std)


def test_k_transforms(cfg, use):
    use()
    cfg.DATALOADER.K_TRANSFORMS = 3
    cfg.INPUT.TRANSFORMS = ("random_resized_crop",)
    manager = DataManager(cfg)
    train, test = next(iter(manager.train_loader_x)), next(iter(manager.test_loader))
    assert [view.shape for view in train["img"]] == [(4, 3, 16, 16)] * 3
    assert not torch.equal(train["img"][0], train["img"][1])
    assert test["img"].shape == (2, 3, 16, 16)


def test_k_transforms_without_transform(cfg, items):
    cfg.DATALOADER.K_TRANSFORMS = 2
    with pytest.raises(ValueError, match=r"DATALOADER.K_TRANSFORMS = 2 needs a transform, but INPUT.NO_TRANSFORM"):
        DatasetWrapper(cfg, items, is_train=True)
    assert isinstance(DatasetWrapper(cfg, items, is_train=False)[0]["img"], Image.Image)


def test_no_transform_through_the_manager(cfg, use):
    use()
    cfg.INPUT.NO_TRANSFORM = True
    batch = next(iter(DataManager(cfg).train_loader_x))
    assert [image.size for image in batch["img"]] == [(20, 24)] * 4
