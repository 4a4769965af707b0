"""What the README and the docs name must exist, so that a newcomer's first step never fails."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_lead_to_files(page):
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_scripts_and_files_in_code_exist(page):
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"\b(?:scripts|tools|clip|trainers|datasets|configs)/[\w./-]+\.(?:sh|py|yaml)\b", text))
    assert [path for path in sorted(named) if not (ROOT / path).is_file()] == []


def test_the_picture_has_words_for_those_who_cannot_see_it():
    assert re.search(r'<img [^>]*alt="[^"]{20,}"', (ROOT / "README.md").read_text(encoding="utf-8"))
