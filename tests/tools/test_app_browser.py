"""The explorer in a browser: answers, figures, keyboard, narrow screens, and that nothing leaves this machine.

Needs gradio (requirements-app.txt), playwright (requirements-browser-test.txt) and a Chromium of the system:
`apt-get install chromium`.
"""

import base64
import csv
import importlib.util
import io
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.tools.explorer.conftest import toy  # noqa: F401
from tools import predict

ROOT = Path(__file__).parent.parent.parent
DROP = """async ([name, data]) => {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const dropped = new DataTransfer();
  dropped.items.add(new File([bytes], name, { type: "image/png" }));
  return dropped;
}"""
STORED = """async () => [
  localStorage.length, sessionStorage.length, (await indexedDB.databases()).length, document.cookie
]"""

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def served(chromium, toy, tmp_path_factory):  # noqa: F811
    """Address of an explorer in a process of its own, and the folder in which it makes its temporary one."""
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("no gradio: requirements-app.txt has it")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    temporary, log = tmp_path_factory.mktemp("temporary"), tmp_path_factory.mktemp("log") / "stderr"
    runs = [item for name in ("coop", "spotlighter", "probe") for item in ("--model-dir", str(toy / name))]
    command = [sys.executable, str(ROOT / "tools/app.py"), *runs, "--port", str(port), "--set", "DEVICE", "cpu"]
    places = {"TMPDIR": str(temporary), "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'Dassl.pytorch'}"}
    with open(log, "wb") as errors:
        process = subprocess.Popen(
            [*command, "--max-megabytes", "1"], stdout=subprocess.PIPE, stderr=errors, env=os.environ | places
        )
    try:
        said = process.stdout.readline().decode()  # once the page can be opened
        assert said == f"Explorer: http://127.0.0.1:{port}/ (Ctrl+C ends it and deletes what was uploaded)\n"
        yield f"http://127.0.0.1:{port}/", temporary
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert list(temporary.iterdir()) == []  # nothing that was uploaded is left
        assert "Traceback" not in log.read_text()
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def visit(chromium, served):
    """Opens the page; errors and requests to other hosts are collected in `page.complaints`."""
    contexts = []

    def go(width=1280):
        context = chromium.new_context(viewport={"width": width, "height": 900})
        contexts.append(context)
        page = context.new_page()
        page.complaints = []
        page.on("console", lambda told: told.type == "error" and page.complaints.append(told.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("dialog", lambda dialog: (page.complaints.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: asked(page, request.url))
        page.goto(served[0])
        page.get_by_role("button", name="Classify").wait_for()
        return page

    def asked(page, url):
        if not url.startswith((served[0], "data:image/jpeg", "blob:")):
            page.complaints.append(url)

    yield go
    for context in contexts:
        context.close()


def drop(page, path):
    """Drop a picture on the field, as a mouse would."""
    data = page.evaluate_handle(DROP, [path.name, base64.b64encode(path.read_bytes()).decode()])
    page.get_by_role("button", name="Click to upload or drop files").dispatch_event("drop", {"dataTransfer": data})
    page.locator("#pictures").get_by_text(path.stem, exact=False).first.wait_for()


def table(page):
    """Column titles, and what each row says."""
    page.locator("#answer table").wait_for()
    rows = page.locator("#answer table tr").all()
    head, *body = [[text.strip() for text in row.locator("th, td").all_inner_texts()] for row in rows]
    return head, body


@pytest.mark.parametrize("width", [1280, 360])
def test_a_dropped_picture_gets_the_answer_of_predict(visit, served, toy, capsys, width):  # noqa: F811
    page, picture = visit(width), toy / "pictures" / "a_1_1.png"
    drop(page, picture)
    page.get_by_role("button", name="Classify").click()
    head, rows = table(page)
    assert head == ["Class", "zero-shot tiny.pt", "CoOp", "CoOp w/ Spotlighter", "LinearProbe"]
    for column, run in enumerate(("zero", "coop", "spotlighter", "probe"), 1):
        capsys.readouterr()
        flags = ["--model-dir", str(toy / run), str(picture), "--format", "csv", "--top", "2", "--set", "DEVICE", "cpu"]
        assert predict.main(flags) == 0
        _, told = csv.reader(io.StringIO(capsys.readouterr().out))
        shown = {row[0]: float(row[column].rstrip("%")) for row in rows}
        assert shown == pytest.approx({told[2]: 100 * float(told[3]), told[4]: 100 * float(told[5])}, abs=0.051)
    figures = page.evaluate(
        "[...document.querySelectorAll('#answer img')].map((i) => [i.complete, i.naturalWidth, "
        "i.getBoundingClientRect().width, i.width > 0 && i.hasAttribute('height'), i.alt.length])"
    )
    assert len(figures) == 3  # as all models see it, Spotlighter's tokens and its map
    assert all(
        whole and natural == 560 and shown > 150 and size and n > 20 for whole, natural, shown, size, n in figures
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(
        "[...document.querySelectorAll('#answer td')].every((e) => e.scrollWidth <= e.clientWidth + 1)"
    )
    assert page.evaluate(STORED) == [0, 0, 0, ""]  # nor does the browser keep anything
    assert page.complaints == []


def test_names_are_edited_and_refused_by_what_is_tied_to_its_classes(visit, toy):  # noqa: F811
    page = visit()
    page.locator("#pictures input[type=file]").set_input_files([toy / "pictures" / "a_0_0.png"])
    page.locator("#pictures").get_by_text("a_0_0").first.wait_for()
    odd = ["red square", "<img src=x onerror=alert(1)>", "${alert(2)}"]
    page.get_by_label("Class names, one a line").fill("\n".join([*odd, "red_square"]))
    page.get_by_label("CoOp", exact=True).uncheck()
    page.get_by_role("button", name="Classify").click()
    head, rows = table(page)
    assert head == ["Class", "zero-shot tiny.pt", "CoOp w/ Spotlighter"]
    assert sorted(row[0] for row in rows) == sorted(odd)
    problem, note = page.locator("#answer .message").all_inner_texts()
    assert problem.startswith("LinearProbe: ")
    assert note == "Left out, because they came twice: “red_square”."
    page.get_by_role("button", name="Reset names").click()
    page.wait_for_function("document.querySelector('#names textarea').value === 'red square\\ngreen_square'")
    assert page.complaints == []


def test_keyboard_alone(visit):
    page, reached = visit(), []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "(() => { const e = document.activeElement; "
                "return e.getAttribute('aria-label') || e.closest('label')?.innerText.trim() || e.innerText; })()"
            )
        )
    wanted = ["Click to upload or drop files", "CoOp", "Class names, one a line", "Reset names", "Classify"]
    places = [next(i for i, text in enumerate(reached) if text.startswith(name)) for name in wanted]
    assert places == sorted(places)
    page.get_by_role("button", name="Classify").focus()
    page.keyboard.press("Enter")
    page.get_by_text("There is no picture; drop one or more on the field “Pictures”.").wait_for()
    assert page.complaints == []


def test_too_large_a_file_is_told(visit, tmp_path):
    large = tmp_path / "large.png"
    large.write_bytes(os.urandom(2**20 + 1))
    page = visit()
    page.locator("#pictures input[type=file]").set_input_files([large])
    page.get_by_text('exceed the maximum allowed size of 1.0 Mb: "large.png"').first.wait_for()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and page.complaints:
        page.wait_for_timeout(100)
    assert page.complaints == []


def test_a_port_that_is_taken(served, toy):  # noqa: F811
    port = served[0].rstrip("/").rpartition(":")[2]
    command = [sys.executable, str(ROOT / "tools/app.py"), "--model-dir", str(toy / "zero"), "--port", port]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'Dassl.pytorch'}"}
    ended = subprocess.run([*command, "--set", "DEVICE", "cpu"], capture_output=True, text=True, env=environment)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.endswith(
        f"Error: Can't listen on port {port} of 127.0.0.1; the port may be taken (--port) or the address not be this "
        "machine's (--host).\n"
    )
