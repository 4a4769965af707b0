import random

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as T  # the classic transforms: the oracle of this file

from dassl.data.transforms import INTERPOLATION_MODES, ToTensor, build_transform, describe
from dassl.data.transforms import transforms as ours
from dassl.data.transforms.autoaugment import CIFAR10Policy, ImageNetPolicy, SVHNPolicy
from dassl.data.transforms.randaugment import RandAugment, RandAugment2, RandAugmentFixMatch

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)  # height 40, width 30
PICTURE = Image.fromarray(PIXELS)


def _names(pipeline):
    return [type(step).__name__ for step in pipeline.transforms]


def _to_float(image):
    return torch.from_numpy(np.asarray(image).astype(np.float32).transpose(2, 0, 1) / np.float32(255))


STEP_OF = {
    "random_translation": "Random2DTranslation",
    "random_crop": "RandomCrop",
    "random_resized_crop": "RandomResizedCrop",
    "random_flip": "RandomHorizontalFlip",
    "imagenet_policy": "ImageNetPolicy",
    "cifar10_policy": "CIFAR10Policy",
    "svhn_policy": "SVHNPolicy",
    "randaugment": "RandAugment",
    "randaugment_fixmatch": "RandAugmentFixMatch",
    "randaugment2": "RandAugment2",
    "colorjitter": "ColorJitter",
    "randomgrayscale": "RandomGrayscale",
    "gaussian_blur": "RandomApply",
    "cutout": "Cutout",
    "normalize": "Normalize",
    "gaussian_noise": "GaussianNoise",
    "instance_norm": "InstanceNormalization",
}  # in the order of the interface's table
BEFORE_TENSOR = list(STEP_OF)[: list(STEP_OF).index("cutout")]


def _expected(choices):
    steps = [] if {"random_crop", "random_resized_crop"} & set(choices) else ["Resize"]
    steps += [STEP_OF[name] for name in BEFORE_TENSOR if name in choices] + ["ToTensor"]
    return steps + [STEP_OF[name] for name in STEP_OF if name in choices and name not in BEFORE_TENSOR]


@pytest.mark.parametrize("choice", ours.AVAI_CHOICES)
def test_each_choice_alone_gives_its_step_and_a_picture(cfg, choice):
    cfg.INPUT.SIZE = (24, 16)
    cfg.INPUT.GB_K = 5
    pipeline = build_transform(cfg, choices=[choice])
    assert _names(pipeline) == _expected([choice])
    for _ in range(3):
        picture = pipeline(PICTURE)
        assert picture.shape == (3, 24, 16)
        assert picture.dtype == torch.float32
        assert torch.isfinite(picture).all()


def test_two_choices_in_either_order_give_the_same_steps(cfg):
    for i, one in enumerate(ours.AVAI_CHOICES):
        for two in ours.AVAI_CHOICES[i + 1 :]:
            expected = _expected([one, two])
            assert _names(build_transform(cfg, choices=[one, two])) == expected
            assert _names(build_transform(cfg, choices=[two, one])) == expected


def test_every_choice_is_in_the_interface():
    assert set(ours.AVAI_CHOICES) == {*STEP_OF, "center_crop"}
    assert len(ours.AVAI_CHOICES) == 18


def test_choices_default_to_the_config(cfg):
    cfg.INPUT.TRANSFORMS = ("random_flip", "normalize")
    assert _names(build_transform(cfg)) == ["Resize", "RandomHorizontalFlip", "ToTensor", "Normalize"]
    assert _names(build_transform(cfg, choices=[])) == ["Resize", "ToTensor"]


def test_plain_training_picture_is_a_resize(cfg):
    cfg.INPUT.SIZE = (24, 16)
    expected = _to_float(PICTURE.resize((16, 24), Image.Resampling.BILINEAR))
    assert torch.equal(build_transform(cfg)(PICTURE), expected)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest"])
def test_test_picture(cfg, mode):
    cfg.INPUT.SIZE = (16, 16)
    cfg.INPUT.INTERPOLATION = mode
    resized = PICTURE.resize((16, 21), getattr(Image.Resampling, mode.upper()))  # smaller edge to 16, 16 * 40 / 30
    cropped = _to_float(resized.crop((0, 2, 16, 18)))
    mean, std = torch.tensor(cfg.INPUT.PIXEL_MEAN)[:, None, None], torch.tensor(cfg.INPUT.PIXEL_STD)[:, None, None]
    for choices, expected in (
        (["random_flip", "random_resized_crop", "cutout"], cropped),
        (["normalize"], (cropped - mean) / std),
        (["center_crop"], cropped),
    ):
        got = build_transform(cfg, is_train=False, choices=choices)(PICTURE)
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
    assert set(INTERPOLATION_MODES) == {"bilinear", "bicubic", "nearest"}


def test_test_picture_of_uneven_size(cfg):
    cfg.INPUT.SIZE = (24, 16)
    resized = PICTURE.resize((24, 32), Image.Resampling.BILINEAR)  # smaller edge to max(SIZE)
    got = build_transform(cfg, is_train=False)(PICTURE)
    torch.testing.assert_close(got, _to_float(resized.crop((4, 4, 20, 28))), rtol=0, atol=0)


def test_test_steps(cfg):
    names = _names(build_transform(cfg, is_train=False, choices=["instance_norm", "normalize", "random_crop"]))
    assert names == ["Resize", "CenterCrop", "ToTensor", "Normalize", "InstanceNormalization"]


# ---- the same numbers as the classic pipeline


def _classic(cfg, choices, is_train):
    """The pipeline of the interface's table in torchvision's classic transforms."""
    given, size = cfg.INPUT, tuple(cfg.INPUT.SIZE)
    mode = T.InterpolationMode(given.INTERPOLATION)
    normalize = T.Normalize(given.PIXEL_MEAN, given.PIXEL_STD)
    last = {"normalize": normalize, "instance_norm": ours.InstanceNormalization()}
    if not is_train:
        steps = [T.Resize(max(size), mode), T.CenterCrop(size), T.ToTensor()]
        return T.Compose(steps + [step for name, step in last.items() if name in choices])
    jitter = T.ColorJitter(given.COLORJITTER_B, given.COLORJITTER_C, given.COLORJITTER_S, given.COLORJITTER_H)
    steps = {
        "random_translation": _ClassicTranslation(*size),
        "random_crop": T.RandomCrop(size, padding=given.CROP_PADDING),
        "random_resized_crop": T.RandomResizedCrop(size, scale=given.RRCROP_SCALE, interpolation=mode),
        "random_flip": T.RandomHorizontalFlip(),
        "colorjitter": jitter,
        "randomgrayscale": T.RandomGrayscale(given.RGS_P),
        "gaussian_blur": T.RandomApply([T.GaussianBlur(given.GB_K)], p=given.GB_P),
        "to tensor": T.ToTensor(),
        "cutout": ours.Cutout(given.CUTOUT_N, given.CUTOUT_LEN),
        "normalize": normalize,
        "gaussian_noise": ours.GaussianNoise(given.GN_MEAN, given.GN_STD),
        "instance_norm": ours.InstanceNormalization(),
    }
    resize = [] if {"random_crop", "random_resized_crop"} & set(choices) else [T.Resize(size, mode)]
    return T.Compose(resize + [step for name, step in steps.items() if name in choices or name == "to tensor"])


class _ClassicTranslation(ours.Random2DTranslation):
    def __call__(self, img):
        if random.random() >= self.p:
            return T.functional.resize(img, [self.height, self.width])
        height, width = round(self.height * 1.125), round(self.width * 1.125)
        top, left = random.randint(0, height - self.height), random.randint(0, width - self.width)
        return T.functional.crop(T.functional.resize(img, [height, width]), top, left, self.height, self.width)


def _pairs(cfg, choices, is_train=True, pictures=None, seeds=range(8)):
    """A picture of each pipeline, under the same seeds."""
    pipelines = build_transform(cfg, is_train, choices), _classic(cfg, choices, is_train)
    for picture in pictures or (PICTURE, PICTURE.rotate(90, expand=True), PHOTO):
        for seed in seeds:
            pair = []
            for pipeline in pipelines:
                random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
                pair.append(pipeline(picture))
            yield pair


PHOTO = PICTURE.resize((250, 187), Image.Resampling.BICUBIC)
DRAW_OTHERWISE = {"imagenet_policy", "cifar10_policy", "svhn_policy", *(n for n in STEP_OF if n.startswith("randaug"))}
EXACT = [name for name in ours.AVAI_CHOICES if name not in {*DRAW_OTHERWISE, "gaussian_blur"}]


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("is_train", [True, False])
def test_each_choice_equals_the_classic_pipeline_to_the_bit(cfg, mode, is_train):
    cfg.INPUT.SIZE, cfg.INPUT.INTERPOLATION = (24, 16), mode
    for choice in EXACT:
        for got, expected in _pairs(cfg, [choice], is_train):
            assert torch.equal(got, expected), choice
            assert got.dtype == torch.float32
            assert got.is_contiguous()


def test_many_choices_equal_the_classic_pipeline_to_the_bit(cfg):
    cfg.INPUT.INTERPOLATION = "bicubic"
    several = [name for name in EXACT if name != "random_crop"], [n for n in EXACT if n != "random_resized_crop"]
    for choices in several:
        assert all(torch.equal(*pair) for pair in _pairs(cfg, choices))


def test_the_published_recipe_equals_the_classic_pipeline_to_the_bit(cfg):
    """CoOp's: 224 px, bicubic."""
    cfg.INPUT.SIZE, cfg.INPUT.INTERPOLATION = (224, 224), "bicubic"
    cfg.INPUT.PIXEL_MEAN = [0.48145466, 0.4578275, 0.40821073]
    cfg.INPUT.PIXEL_STD = [0.26862954, 0.26130258, 0.27577711]
    photo = PICTURE.resize((500, 375), Image.Resampling.BICUBIC)
    for is_train in (True, False):
        choices = ["random_resized_crop", "random_flip", "normalize"]
        assert all(torch.equal(*pair) for pair in _pairs(cfg, choices, is_train, [photo]))


def test_blur_differs_from_the_classic_one_by_a_level_at_most(cfg):
    """v2 computes the kernel in another way."""
    cfg.INPUT.SIZE, cfg.INPUT.GB_P = (32, 32), 0.9
    far, pixels = 0, 0
    for got, expected in _pairs(cfg, ["gaussian_blur"]):
        levels = ((got - expected) * 255).abs().round()
        assert levels.max() <= 1
        far, pixels = far + int((levels > 0).sum()), pixels + levels.numel()
    assert far <= pixels / 1000


def _outcomes(step, draws):
    """The different pictures that come out under many seeds, [n, bytes]."""
    torch.manual_seed(0)
    return np.unique([np.asarray(step(PICTURE)).ravel() for _ in range(draws)], axis=0)


def _all_among(got, expected):
    """v2 rounds the threshold of "Solarize" otherwise, which can turn the pixels of one level of 256."""
    return all(np.abs(expected.astype(np.int16) - picture).mean(axis=1).min() < 0.5 for picture in got)


@pytest.mark.parametrize(
    ("policy", "name"), [(ImageNetPolicy, "IMAGENET"), (CIFAR10Policy, "CIFAR10"), (SVHNPolicy, "SVHN")]
)
def test_policies_have_the_outcomes_of_the_classic_ones(policy, name, monkeypatch):
    classic = T.AutoAugment(T.AutoAugmentPolicy[name], fill=[128] * 3)
    expected = []
    for pair, *done_and_sign in np.ndindex(25, 2, 2, 2, 2):  # each of two operations done or not, to either side
        done, sign = torch.tensor(done_and_sign).split(2)
        monkeypatch.setattr(classic, "get_params", lambda n, params=(pair, done, sign): params)
        expected.append(np.asarray(classic(PICTURE)).ravel())
    got = _outcomes(policy(), 200)
    assert len(got) > 40
    assert _all_among(got, np.array(expected))


@pytest.mark.parametrize("magnitude", [3, 10, 30])
def test_randaugment_has_the_outcomes_of_the_classic_one(magnitude):
    got, expected = _outcomes(RandAugment(1, magnitude), 400), _outcomes(T.RandAugment(1, magnitude, 31), 400)
    assert len(got) == len(expected) > 5
    assert _all_among(got, expected)


def test_randaugment_of_random_magnitude_is_randaugment_at_a_drawn_one():
    drawn = set()
    for seed in range(40):
        torch.manual_seed(seed)
        magnitude, _ = int(torch.randint(31, ())), torch.rand(())
        expected = np.asarray(RandAugment(1, magnitude)(PICTURE))
        torch.manual_seed(seed)
        assert (np.asarray(RandAugmentFixMatch(1)(PICTURE)) == expected).all()
        drawn.add(magnitude)
    assert len(drawn) > 15


def test_a_crop_as_high_as_the_picture_has_the_outcomes_of_the_classic_one(cfg):
    cfg.INPUT.SIZE, cfg.INPUT.CROP_PADDING = (40, 26), 0
    (crop, _) = build_transform(cfg, choices=["random_crop"]).transforms
    got, expected = _outcomes(crop, 100), _outcomes(T.RandomCrop((40, 26), padding=0), 100)
    assert (got == expected).all()
    assert len(got) == 5


def test_steps_work_in_a_classic_pipeline_and_classic_steps_in_ours(cfg):
    ours_, classic = build_transform(cfg, choices=["normalize"]), _classic(cfg, ["normalize"], True)
    mixed = T.Compose(ours_.transforms[:2] + classic.transforms[2:])
    assert torch.equal(mixed(PICTURE), classic(PICTURE))
    ours_.transforms[0] = classic.transforms[0]
    assert torch.equal(ours_(PICTURE), classic(PICTURE))


def test_bytes_are_divided():
    levels = np.arange(256, dtype=np.uint8)
    got = ToTensor()(Image.fromarray(levels[None]))
    assert (got.numpy() == levels.astype(np.float32) / np.float32(255)).all()
    assert got.shape == (1, 1, 256)


def test_config_values_arrive(cfg):
    given = cfg.INPUT
    given.CROP_PADDING, given.CUTOUT_N, given.CUTOUT_LEN, given.GN_MEAN, given.GN_STD = 3, 2, 5, 0.5, 0.25
    given.RANDAUGMENT_N, given.RANDAUGMENT_M, given.RGS_P, given.GB_P, given.GB_K = 3, 7, 0.6, 0.7, 9
    given.COLORJITTER_B, given.COLORJITTER_C, given.COLORJITTER_S, given.COLORJITTER_H = 0.1, 0.2, 0.3, 0.4
    steps = build_transform(cfg, choices=[name for name in ours.AVAI_CHOICES if name != "random_resized_crop"])
    by_name = {type(step).__name__: step for step in steps.transforms}
    assert by_name["RandomCrop"].padding == [3, 3, 3, 3]
    assert (by_name["Cutout"].n_holes, by_name["Cutout"].length) == (2, 5)
    assert (by_name["GaussianNoise"].mean, by_name["GaussianNoise"].std) == (0.5, 0.25)
    assert (by_name["RandAugment"].num_ops, by_name["RandAugment"].magnitude) == (3, 7)
    assert by_name["RandAugment"].num_magnitude_bins == 31
    assert by_name["RandAugmentFixMatch"].n == by_name["RandAugment2"].n == 3
    assert by_name["RandomGrayscale"].p == 0.6
    assert by_name["RandomApply"].p == 0.7
    assert by_name["RandomApply"].transforms[0].kernel_size == (9, 9)
    jitter = by_name["ColorJitter"]
    assert jitter.brightness == (0.9, 1.1)
    assert jitter.contrast == (0.8, 1.2)
    assert jitter.saturation == (0.7, 1.3)
    assert jitter.hue == (-0.4, 0.4)


OTHER_INPUT = {
    **{"SIZE": (8, 9), "INTERPOLATION": "nearest", "PIXEL_MEAN": [0.1, 0.2, 0.3], "PIXEL_STD": [0.4, 0.5, 0.6]},
    **{"CROP_PADDING": 3, "RRCROP_SCALE": (0.2, 0.9), "CUTOUT_N": 2, "CUTOUT_LEN": 5, "GN_MEAN": 0.5, "GN_STD": 0.25},
    **{"RANDAUGMENT_N": 3, "RANDAUGMENT_M": 7, "COLORJITTER_B": 0.1, "COLORJITTER_C": 0.2, "COLORJITTER_S": 0.3},
    **{"COLORJITTER_H": 0.2, "RGS_P": 0.6, "GB_P": 0.7, "GB_K": 9},
}


def test_the_description_of_a_transform_tells_every_option(cfg):
    """Caches of features are told apart by it."""

    def described():
        return describe(build_transform(cfg, choices=ours.AVAI_CHOICES))

    assert set(OTHER_INPUT) == set(cfg.INPUT) - {"TRANSFORMS", "NO_TRANSFORM", "ON_ERROR"}
    seen = {described(), described()}
    for key, value in OTHER_INPUT.items():
        before, cfg.INPUT[key] = cfg.INPUT[key], value
        seen.add(described())
        cfg.INPUT[key] = before
    assert len(seen) == 1 + len(OTHER_INPUT)
    assert not any(" at 0x" in text for text in seen)


@pytest.mark.parametrize("choice", sorted({*ours.AVAI_CHOICES} - {"center_crop"}))
def test_the_description_of_a_transform_tells_every_step(cfg, choice):
    assert describe(build_transform(cfg, choices=[choice])) != describe(build_transform(cfg, choices=[]))


def test_the_description_of_a_step_of_ones_own():
    class Own:
        def __init__(self, table):
            self.options = {"table": table, 3: (1, [2.5])}

    assert describe(Own(torch.tensor([1, 2]))) == "Own(options={'table': [1, 2], 3: [1, [2.5]]})"


@pytest.mark.parametrize("secret", [lambda image: image, [len, lambda image: image], object(), torch.Generator()])
def test_a_step_that_tells_nothing_has_no_description(secret):
    with pytest.raises(ValueError, match=r"<.* at 0x.*> does not tell what it does"):
        describe(secret)


def test_no_transform(cfg, capsys):
    cfg.INPUT.NO_TRANSFORM = True
    cfg.VERBOSE = True
    assert build_transform(cfg) is None
    assert "INPUT.NO_TRANSFORM is set" in capsys.readouterr().out


def test_one_line_a_step(cfg, capsys):
    cfg.VERBOSE = True
    build_transform(cfg, choices=["normalize", "random_flip"])
    assert capsys.readouterr().out.splitlines() == [
        "Building the training transform",
        "+ resize to 16x16",
        "+ random_flip",
        "+ to tensor",
        "+ normalize",
    ]
    build_transform(cfg, is_train=False, choices=["normalize"])
    assert capsys.readouterr().out.splitlines() == [
        "Building the test transform",
        "+ resize the smaller edge to 16",
        "+ 16x16 center crop",
        "+ to tensor",
        "+ normalize",
    ]


def test_unknown_names(cfg):
    with pytest.raises(ValueError, match=r"'random_flips' does not exist; .*do you mean 'random_flip'"):
        build_transform(cfg, choices=["normalize", "random_flips"])
    cfg.INPUT.INTERPOLATION = "cubic"
    with pytest.raises(ValueError, match=r"'cubic' does not exist; .*do you mean 'bicubic'"):
        build_transform(cfg)
    cfg.INPUT.INTERPOLATION = "bicubic"
    cfg.INPUT.SIZE = (16,)
    with pytest.raises(ValueError, match=r"INPUT.SIZE must be \(height, width\), got \(16,\)"):
        build_transform(cfg)


# ---- the steps of our own


def test_translation_is_a_crop_of_a_larger_picture(monkeypatch):
    step = ours.Random2DTranslation(24, 16)
    larger = np.asarray(PICTURE.resize((18, 27), Image.Resampling.BILINEAR))
    crops = {larger[y : y + 24, x : x + 16].tobytes() for y in range(4) for x in range(3)}
    plain = np.asarray(PICTURE.resize((16, 24), Image.Resampling.BILINEAR)).tobytes()
    random.seed(0)
    got = [np.asarray(step(PICTURE)).tobytes() for _ in range(100)]
    assert set(got) <= crops | {plain}
    assert 30 < sum(picture == plain for picture in got) < 70
    assert len(set(got)) > 8
    assert all(np.asarray(ours.Random2DTranslation(24, 16, p=0)(PICTURE)).tobytes() == plain for _ in range(5))


def test_instance_normalization():
    got = ours.InstanceNormalization()(_to_float(PICTURE)).numpy()
    pixels = PIXELS.astype(np.float64).transpose(2, 0, 1) / 255
    expected = (pixels - pixels.mean((1, 2), keepdims=True)) / pixels.std((1, 2), ddof=1, keepdims=True)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_cutout():
    picture = torch.ones(3, 20, 30)
    np.random.seed(0)
    areas = []
    for _ in range(50):
        holes = ours.Cutout(n_holes=1, length=8)(picture)[0] == 0
        rows, columns = np.flatnonzero(holes.any(1).numpy()), np.flatnonzero(holes.any(0).numpy())
        areas.append(int(holes.sum()))
        assert areas[-1] == len(rows) * len(columns)  # one rectangle
        assert rows[-1] - rows[0] + 1 == len(rows)
    assert max(areas) == 64
    assert min(areas) >= 16  # the centre is inside
    assert picture.min() == 1  # the input is not written to
    assert (ours.Cutout(n_holes=9, length=8)(picture) == 0).sum() > 3 * 64


def test_gaussian_noise():
    picture = torch.zeros(3, 100, 100)
    random.seed(0)
    torch.manual_seed(0)
    step = ours.GaussianNoise(mean=0.5, std=0.2)
    noisy = [out for out in (step(picture) for _ in range(40)) if out is not picture]
    assert 10 < len(noisy) < 30
    assert abs(float(noisy[0].mean()) - 0.5) < 0.01
    assert abs(float(noisy[0].std()) - 0.2) < 0.01


def test_randaugment_magnitude():
    with pytest.raises(ValueError, match=r"magnitude of RandAugment must be in 0\.\.30, got 31"):
        RandAugment(2, 31)


def test_randaugment_of_random_magnitude():
    torch.manual_seed(0)
    fixmatch = {np.asarray(RandAugmentFixMatch(2)(PICTURE)).tobytes() for _ in range(30)}
    assert len(fixmatch) > 20
    assert RandAugment2(2, p=0.0)(PICTURE) is PICTURE
    torch.manual_seed(0)
    kept = sum(RandAugment2(1)(PICTURE) is PICTURE for _ in range(200))
    assert 50 < kept < 120  # 40% skipped, plus the operations that leave this picture alone
