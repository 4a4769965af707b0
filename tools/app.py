"""A page on which to try trained runs: drop pictures, write class names, compare runs, see activated tokens.

    pip install -r requirements-app.txt
    python tools/app.py --model-dir output/run
    python tools/app.py --model-dir output/coop --model-dir output/spotlighter --port 8000

Each run is a preset, and so is zero-shot CLIP with each of their backbones. The page works offline and listens on this
machine alone, unless --host says otherwise. What is uploaded lies in a private folder, is deleted after a few minutes,
and the folder with it when the explorer ends (Ctrl+C).

Exit code: 0 ended by the user, 1 could not start, 2 wrong command line.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import ipaddress
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.explorer.explore import Explorer
from tools.explorer.limits import Refused, add_limits, checked_names, limits_of
from tools.explorer.presets import find_presets
from tools.explorer.uploads import private_folder
from tools.run_inputs import add_run, opts_of, read_classnames

PORTS = range(1, 65536)


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    try:
        run(args)
    except (OSError, RuntimeError, ValueError, AssertionError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "--model-dir",
        required=True,
        action="append",
        metavar="RUN",
        help="run folder that train.py wrote; repeatable; the class names of the first one stand on the page",
    )
    add_run(parser)
    add("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine alone)")
    add("--port", type=int, default=7860, metavar="N", help="port to listen on (default: 7860)")
    add("--top", type=int, default=5, metavar="N", help="best classes of each preset, at first (default: 5)")
    add("--cache", type=int, metavar="N", help="predictors that are kept in memory (default: two a preset)")
    add_limits(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    if importlib.util.find_spec("gradio") is None:
        raise RuntimeError("The explorer needs gradio; install it: pip install -r requirements-app.txt")
    if args.port not in PORTS:
        raise ValueError(f"--port must be in 1..65535, got {args.port}.")
    if not 1 <= args.top <= 10:
        raise ValueError(f"--top must be in 1..10, got {args.top}.")
    limits = limits_of(args)
    presets = find_presets(args.model_dir, args.load_epoch, opts_of(args))
    own = presets[-len(args.model_dir)].run.names  # of the first run
    names = read_classnames(args.classnames) if args.classnames else own
    try:
        names, _ = checked_names("\n".join(names), limits)
    except Refused as error:
        raise ValueError(f"The class names can't stand on the page: {error}") from None
    explorer = Explorer(presets, limits, 2 * len(presets) if args.cache is None else args.cache)
    with contextlib.redirect_stdout(sys.stderr):  # what trainers say of themselves
        for preset in presets:  # what can't be loaded is told now, not on the page
            explorer.predictors.get(preset, preset.run.names)
    if not is_loopback(args.host):
        print(
            f"Warning: {args.host} can be reached from other machines, and whoever reaches it can use the page, which "
            "has no password; do this only on a network that you trust.",
            file=sys.stderr,
        )
    stop = Event()
    with private_folder() as uploads, until_told(stop):
        from tools.explorer import page  # gradio reads its environment when it is imported

        said = "Explorer: {} (Ctrl+C ends it and deletes what was uploaded)"
        page.serve(page.build(explorer, names, args.top), limits, args.host, args.port, uploads, stop, said)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextlib.contextmanager
def until_told(stop: Event) -> Iterator[None]:
    """Ctrl+C and a request to terminate set the event instead of ending the process at once."""
    before = {kind: signal.signal(kind, lambda *_: stop.set()) for kind in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


if __name__ == "__main__":
    sys.exit(main())
