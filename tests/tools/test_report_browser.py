"""The report in a browser: console, figures, narrow screens, keyboard, sorting, contrast in light and dark.

Needs playwright (requirements-browser-test.txt) and a Chromium of the system: `apt-get install chromium`.
"""

import pytest

from tools import report

CONTRAST = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (c) => [0.2126, 0.7152, 0.0722].reduce((sum, share, i) => sum + share * linear(c[i] / 255), 0);
  const behind = (node) => {
    for (let e = node; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  const low = [];
  const texts = "h1, h2, h3, h4, p, li, th, td, caption, figcaption, a, code, summary, button";
  for (const e of document.querySelectorAll(texts)) {
    const [x, y] = [light(parse(getComputedStyle(e).color)), light(behind(e))];
    const contrast = (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05);
    if (contrast < 4.5) low.push([e.tagName, e.textContent.slice(0, 30), contrast]);
  }
  return [low, light(behind(document.body))];
}"""

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def written(tiny_runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    return report.write_report(tiny_runs / "output", folder, opts=[("DEVICE", "cpu")])


@pytest.fixture
def visit(chromium, written):
    """Opens the page; complaints and requests that leave the file are collected in `page.complaints`."""
    contexts = []

    def go(width=1280, scheme="light"):
        context = chromium.new_context(color_scheme=scheme, viewport={"width": width, "height": 800}, offline=True)
        contexts.append(context)
        page = context.new_page()
        page.complaints = []
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("request", lambda request: asked(page, request.url))
        page.goto(written.as_uri())
        return page

    def asked(page, url):
        if not url.startswith(("data:image/png", written.as_uri())):
            page.complaints.append(url)

    yield go
    for context in contexts:
        context.close()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (360, "light"), (360, "dark")])
def test_nothing_complains_and_every_figure_shows(visit, width, scheme):
    page = visit(width, scheme)
    figures = page.evaluate(
        "[...document.images].map((i) => [i.complete, i.naturalWidth, i.getBoundingClientRect().width, i.alt.length])"
    )
    assert len(figures) > 10
    assert all(complete and natural > 0 and shown > 200 and words > 20 for complete, natural, shown, words in figures)
    assert page.complaints == []
    used = page.evaluate("document.images[0].currentSrc")
    dark, light = page.evaluate("[document.querySelector('picture source').srcset, document.images[0].src]")
    assert used == (dark if scheme == "dark" else light)


@pytest.mark.parametrize("width", [320, 360, 768])
def test_the_page_does_not_scroll_sideways(visit, width):
    page = visit(width)
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate("scrollTo(500, 0)")
    assert page.evaluate("scrollX") == 0
    table = page.evaluate(
        "(() => { const s = document.querySelector('#results .scroll'); s.scrollLeft = 50; "
        "return [s.scrollWidth > s.clientWidth, s.scrollLeft]; })()"
    )
    assert table == ([True, 50] if width < 400 else table)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(visit, scheme):
    page = visit(scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    low, paper = page.evaluate(CONTRAST)
    assert low == []
    assert paper < 0.1 if scheme == "dark" else paper > 0.9


def test_keyboard(visit):
    page = visit()
    page.keyboard.press("Tab")
    focus = "[document.activeElement.textContent, document.activeElement.getBoundingClientRect().left >= 0, "
    focus += "getComputedStyle(document.activeElement).outlineWidth]"
    assert page.evaluate(focus) == ["Skip to the content", True, "3px"]
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#content"
    assert page.evaluate("document.activeElement.id") == "content"


def test_tables_sort_by_numbers_and_by_text(visit):
    page = visit()
    table = page.locator("#look table.sortable").first
    column = table.get_by_role("button", name="Accuracy in %")
    for state in ("ascending", "descending"):
        column.press("Enter")
        values = [float(text) for text in table.locator("tbody tr td:nth-child(4)").all_inner_texts()]
        assert values == sorted(values, reverse=state == "descending")
        assert table.locator(f"th[aria-sort={state}]").count() == 1
    table.get_by_role("button", name="Class").click()
    names = table.locator("tbody th").all_inner_texts()
    assert names == sorted(names)
    assert table.locator("th[aria-sort]").count() == 1


def test_print_shows_what_is_folded_and_is_light(visit, tmp_path):
    page = visit(scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    _, paper = page.evaluate(CONTRAST)
    assert paper > 0.9
    assert page.evaluate("document.images[0].currentSrc === document.images[0].src")
    assert page.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details:not([open])").count() > 0


def test_it_reads_without_scripts(chromium, written):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(written.as_uri())
    assert page.locator("table.sortable button").count() == 0
    assert page.get_by_role("heading", name="How to repeat it").is_visible()
    context.close()
