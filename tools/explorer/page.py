"""The page itself: fields, what happens when they are used, and the server behind it. The only module with gradio."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Event, Thread

import gradio as gr

from tools.explorer.explore import Explorer, sentence
from tools.explorer.limits import Limits, Refused
from tools.explorer.render import STYLE, refusal, to_html
from tools.explorer.uploads import keep_sweeping

WAITING = 16  # requests in the queue before others are turned away
SESSIONS = 32  # open pages that the server remembers
# system fonts: gradio's own are fetched from elsewhere or shipped, and neither is needed
FONTS = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
PAGE_STYLE = """
footer { display: none !important; }
.gradio-container { max-width: 1200px !important; margin: 0 auto; }
#intro h1 { font-size: 1.5rem; font-weight: 700; margin: 0 0 .3rem; }
#intro p { margin: 0; }
/* gradio's greys and its button are too light to read */
.gradio-container { --button-primary-background-fill: #1d4ed8; --body-text-color-subdued: #52525b;
  --block-info-text-color: #52525b;
  --block-label-text-color: #3f3f46; --block-title-text-color: #3f3f46; }
.dark .gradio-container, .gradio-container.dark { --body-text-color-subdued: #c4c4cc; --block-info-text-color: #c4c4cc;
  --block-label-text-color: #e4e4e7; --block-title-text-color: #e4e4e7; }
"""


def respond(explorer: Explorer, files: Sequence[str] | None, text: str | None, chosen: Sequence[str], top: int) -> str:
    """The HTML of a request's answer, whatever happens."""
    try:
        return to_html(explorer.answer(files, text, chosen), int(top))
    except Refused as error:
        return refusal(str(error))
    except Exception as error:
        return refusal(sentence(error))


def build(explorer: Explorer, names: Sequence[str], top: int) -> gr.Blocks:
    """The page.

    Args:
        names: class names that stand there at first.
        top: best classes shown of each preset at first.
    """
    titles, limits = list(explorer.presets), explorer.limits
    with gr.Blocks(title="Explorer", analytics_enabled=False) as page:
        gr.HTML(intro(limits), elem_id="intro")
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                files = gr.File(
                    label="Pictures", file_count="multiple", file_types=["image"], height=170, elem_id="pictures"
                )
                chosen = gr.CheckboxGroup(titles, value=titles, label="Presets", elem_id="presets")
                text = gr.Textbox(
                    "\n".join(names),
                    label="Class names, one a line",
                    lines=8,
                    max_lines=8,
                    elem_id="names",
                    info="Any words; methods that read text need no training for new ones.",
                )
                best = gr.Slider(1, 10, value=min(top, 10), step=1, label="Best classes", elem_id="top")
                with gr.Row():
                    reset = gr.Button("Reset names", elem_id="reset", min_width=120)
                    ask = gr.Button("Classify", variant="primary", elem_id="ask", min_width=120)
            with gr.Column(scale=5, min_width=300):
                answer = gr.HTML(welcome(), elem_id="answer")
        private = {"api_visibility": "private"}
        ask.click(
            lambda *given: respond(explorer, *given),
            [files, text, chosen, best],
            answer,
            scroll_to_output=True,
            **private,
        )
        reset.click(lambda: "\n".join(names), None, text, queue=False, **private)
    return page


def welcome() -> str:
    """What stands where answers will."""
    return '<div class="explorer"><p class="message note">Drop pictures and press “Classify”.</p></div>'


def intro(limits: Limits) -> str:
    """The head of the page."""
    return (
        "<h1>Explorer</h1><p>Drop pictures, write class names, and compare what zero-shot CLIP and trained runs make "
        f"of them. At most {limits.max_pictures} pictures at once, of {limits.max_megabytes:g} MB and "
        f"{limits.max_megapixels:g} million pixels each, and {limits.max_names} class names. Pictures go to the "
        f"machine that serves this page, nowhere else, and are deleted there after {limits.keep_minutes:g} minutes.</p>"
    )


def serve(page: gr.Blocks, limits: Limits, host: str, port: int, uploads: Path, stop: Event, said: str) -> None:
    """Serve the page until `stop` is set.

    Args:
        uploads: where gradio puts what is uploaded; old files in it are deleted all along.
        said: printed once the page can be opened, with the address for "{}".

    Raises:
        OSError: the host can't be listened on, or the port is taken.
    """
    try:
        _, address, _ = page.queue(max_size=WAITING, default_concurrency_limit=1, api_open=False).launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            quiet=True,
            inbrowser=False,
            share=False,
            show_error=False,
            enable_monitoring=False,
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
            footer_links=[],
            max_file_size=limits.max_bytes,
            state_session_capacity=SESSIONS,
            theme=gr.themes.Default(primary_hue="blue", **FONTS),
            css=PAGE_STYLE + STYLE,
        )
    except OSError:
        raise OSError(
            f"Can't listen on port {port} of {host}; the port may be taken (--port) or the address not be "
            "this machine's (--host)."
        ) from None
    print(said.format(address), flush=True)
    Thread(target=keep_sweeping, args=(uploads, limits.keep_minutes * 60, stop), daemon=True).start()
    try:
        stop.wait()
    finally:
        page.close(verbose=False)
