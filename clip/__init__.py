"""Frozen CLIP: models, tokenizer, weights. Knows nothing of trainers, data sets or configurations."""

from .clip import *  # noqa: F403
