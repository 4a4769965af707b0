"""CoOp against a prompt assembled by hand and run through CLIP's plain 77-token text side."""

import pytest
import torch
import torch.nn.functional as F

import clip
from clip.backbone import Backbone
from clip.simple_tokenizer import SimpleTokenizer
from trainers.coop import CoOpMethod


def text_by_hand(model, names, words, ctx, position):
    """Unit features [C, d]: token rows joined by hand, all 77 positions, EOT row of the text with words in front."""
    encode = SimpleTokenizer().encode
    M = ctx.shape[-2]
    rows = []
    for c, name in enumerate(names):
        name = name.replace("_", " ")
        ids = clip.tokenize(f"{words or ' '.join(['X'] * M)} {name}.")[0]
        table = model.token_embedding.weight[ids]  # [77, w]
        own = ctx[c] if ctx.dim() == 3 else ctx
        sos, rest, n = table[:1], table[1 + M :], len(encode(name))
        parts = {
            "end": [sos, own, rest],
            "middle": [sos, own[: M // 2], rest[:n], own[M // 2 :], rest[n:]],
            "front": [sos, rest[:n], own, rest[n:]],
        }[position]
        x = torch.cat(parts) + model.positional_embedding
        x = model.transformer(x[:, None])[:, 0]
        rows.append(model.ln_final(x)[ids.argmax()] @ model.text_projection)
    return F.normalize(torch.stack(rows), dim=-1)


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("csc", [False, True])
@pytest.mark.parametrize("n_ctx", [1, 4, 5])
def test_text_features_equal_a_prompt_assembled_by_hand(tiny_clip, space, position, csc, n_ctx):
    torch.manual_seed(1)
    method = CoOpMethod(Backbone(tiny_clip), space, n_ctx, "", csc, position)
    expected = text_by_hand(tiny_clip, space.names, None, method.ctx, position)
    torch.testing.assert_close(method.text(), expected, atol=1e-5, rtol=0)


def test_words_give_the_zero_shot_text_at_first(tiny_clip, backbone, space):
    method = CoOpMethod(backbone, space, 16, "a photo of a", csc=True)  # csc is ignored with words, as released
    assert method.ctx.shape == (4, 64)
    ids = clip.tokenize([f"a photo of a {name}." for name in space.cleaned])
    torch.testing.assert_close(method.text(), F.normalize(tiny_clip.encode_text(ids), dim=-1), atol=1e-5, rtol=0)


def test_underscores_in_words_are_spaces(backbone, space):
    plain, underscored = (CoOpMethod(backbone, space, ctx_init=words) for words in ("a photo of a", "a_photo of a"))
    torch.testing.assert_close(plain.ctx, underscored.ctx)


def test_random_context_has_the_published_spread(backbone, space):
    torch.manual_seed(0)
    ctx = CoOpMethod(backbone, space, 64, csc=True).ctx
    assert ctx.shape == (4, 64, 64)
    assert ctx.std().item() == pytest.approx(0.02, rel=0.05)


def test_loss_is_cross_entropy(backbone, space, images):
    label = torch.tensor([0, 1, 2, 3, 0])
    out = CoOpMethod(backbone, space, 4).losses(images, label)
    p = torch.exp(out.logits.double() - out.logits.double().logsumexp(1, keepdim=True))
    assert out.total.item() == pytest.approx(-p[torch.arange(5), label].log().mean().item(), rel=1e-5)
    assert set(out.terms) == {"ce"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_token_position": "start"}, "CLASS_TOKEN_POSITION must be one of .* got 'start'"),
        ({"n_ctx": 0}, "N_CTX must be at least 1, got 0"),
    ],
)
def test_bad_options_are_named(backbone, space, options, message):
    with pytest.raises(ValueError, match=message):
        CoOpMethod(backbone, space, **options)
