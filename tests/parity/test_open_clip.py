"""Our CLIP against open_clip's on the same random weights, and token ids on awkward texts.

open_clip's own builder for OpenAI's state dicts rounds them to half precision, so its models are built from
configurations here, and their fp32 weights go to ours.
"""

import logging
import random

import open_clip
import pytest
import torch
from open_clip.model import CLIP as OpenCLIP
from open_clip.model import CLIPTextCfg, CLIPVisionCfg

import clip

TEXTS = ["a photo of a cat.", "two dogs", "", "a long text about a red star that stands behind a small blue ring " * 3]


def vit_b32_like():
    """Widths, patch and image size of ViT-B/32, fewer blocks."""
    vision = CLIPVisionCfg(layers=3, width=768, head_width=64, patch_size=32, image_size=224)
    return OpenCLIP(512, vision, CLIPTextCfg(width=512, heads=8, layers=3), quick_gelu=True)


def small_vit():
    vision = CLIPVisionCfg(layers=4, width=128, head_width=64, patch_size=8, image_size=64)
    return OpenCLIP(96, vision, CLIPTextCfg(width=128, heads=2, layers=4), quick_gelu=True)


def rn50():
    logging.disable(logging.WARNING)  # it warns that the weights are random
    try:
        return open_clip.create_model("RN50-quickgelu", pretrained=None)
    finally:
        logging.disable(logging.NOTSET)


def lively(model):
    """Move norms and biases away from 1 and 0, so that swapping or dropping one shows."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if "running_var" in name:
                tensor.uniform_(0.5, 1.5)
            elif tensor.dim() == 1 and tensor.is_floating_point():
                tensor.add_(0.1 * torch.randn_like(tensor))
    return model.eval()


@pytest.mark.parametrize(("make", "size"), [(vit_b32_like, 224), (small_vit, 64), (rn50, 224)])
@torch.no_grad()
def test_features_equal_open_clips(make, size):
    torch.manual_seed(0)
    theirs = lively(make())
    ours = clip.build_model(theirs.state_dict(), torch.float32)
    assert set(ours.state_dict()) == set(theirs.state_dict())
    images, text = torch.randn(2, 3, size, size), clip.tokenize(TEXTS)
    for got, want in (
        (ours.encode_image(images), theirs.encode_image(images)),
        (ours.encode_text(text), theirs.encode_text(text)),
    ):
        assert want.std() > 1e-2
        torch.testing.assert_close(got, want, atol=1e-5, rtol=0)
        cosine = torch.cosine_similarity(got.double(), want.double())
        assert cosine.min() > 0.99999  # acceptance check 1


def awkward_texts():
    """200 texts: each kind of awkwardness, and mixtures of them from a fixed seed."""
    texts = [
        *("", " ", "\t\n", ".", "...", "!?", "'", "''s", "don't WE'LL they'RE", "I'M", "0", "3.14159", "1,000,000"),
        *("CamelCaseName", "snake_case_name", "UPPER", "a-b-c", "crane (bird)", "Boeing 737-800", "C++ & C#", "50%"),
        *(
            "café",
            "naïve façade",
            "Ångström",
            "Željko Đurić",
            "cafe\u0301",
            "ﬁne ﬂour",
            "Ｆｕｌｌ",
            "İstanbul",
            "ß",
            "½",
        ),
        *("日本語のテキスト", "中文字符", "한국어", "日本 and English", "العربية", "עברית", "ไทย", "हिन्दी"),
        *("Ελληνικά", "русский", "em—dash", "→←", "“quotes” ‘single’", "☃", "™®©", "€£¥", "∑∫√≠", "❤️"),
        *("😀", "a 🐱 on a mat", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea", "👍🏽 ok"),
        *("&amp;", "&amp;amp; twice", "&lt;b&gt;bold&lt;/b&gt;", "&#39;x&#x27;", "&eacute;", "<b>tag</b>", "a&nbsp;b"),
        *("  leading", "trailing  ", "many    spaces", "tab\tand\nnewline", "non\u00a0breaking", "zero\u200bwidth"),
        *("schÃ¶n", "âœ” mojibake", "lineone\r\nlinetwo", "\x00null", "bell\x07", "<start_of_text>", "<end_of_text> x"),
        *("a" * 300, "word " * 100, "日" * 120, "😀" * 60, "x y " * 37, "cat " * 75, "cat " * 76, "pneumonoultra"),
        *("a.b.c.d", "http://example.org/a?b=c&d=e", "user@example.org", "#tag @name", "$9.99", "{}[]()", "\\n"),
        *("IN'S", "rock'n'roll", "o'clock", "l'été", "--", "___", "a_photo_of", "~^|", "1st 2nd 3rd", "x²+y²", "№5"),
    ]
    chance = random.Random(0)
    while len(texts) < 200:
        parts = chance.sample(texts[:90], chance.randint(2, 4))
        joined = chance.choice(["", " ", "  ", "\n", "-"]).join(parts)
        texts.append(chance.choice([str.upper, str.title, str.swapcase, str])(joined))
    return texts


def test_token_ids_equal_open_clips_on_200_awkward_texts():
    texts = awkward_texts()
    assert len(texts) == len(set(texts)) == 200
    ours = clip.tokenize(texts, truncate=True)
    assert torch.equal(ours, open_clip.tokenize(texts))
    assert torch.equal(clip.tokenize(texts, 20, truncate=True), open_clip.tokenize(texts, 20))
    lengths = ours.ne(0).sum(1)
    assert (lengths == 77).sum() >= 4
    assert lengths.min() == 2
    for text, ids, length in zip(texts, ours, lengths, strict=True):
        if length < 77:
            assert torch.equal(clip.tokenize(text)[0], ids)
