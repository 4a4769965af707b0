"""Small domains, so that tests render hundreds of pictures, not thousands."""

from __future__ import annotations

from dataclasses import replace

import pytest

from datasets.shapes import domains


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> domains.Domain:
    """`Shapes` with 1 training, 1 validation and 1 test picture a class, registered under its name."""
    domain = replace(domains.DOMAINS["Shapes"], counts=(1, 1, 1))
    monkeypatch.setitem(domains.DOMAINS, "Shapes", domain)
    return domain
