"""The process group: who belongs to it, on which device each computes, and that a failure of one ends all."""

import atexit
import contextlib
import datetime
import os
import re
import sys
import threading
import time
import traceback
import warnings
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NoReturn

import torch
import torch.distributed as dist

TIMEOUT = datetime.timedelta(minutes=30)  # what one process may take while others wait, e.g. to fetch weights
WATCH_SECONDS = 1.0  # between two looks at whether another process has failed
GRACE_SECONDS = 3.0  # until a process that waits for a failed one is ended


@dataclass(frozen=True)
class Group:
    """This process among the others."""

    rank: int
    world_size: int
    local_rank: int  # on this machine
    store: Any  # where the first failure is written down


_group: Group | None = None


def world_size() -> int:
    """Number of processes; 1 where torchrun started none or one."""
    return 1 if _group is None else _group.world_size


def rank() -> int:
    """Number of this process, 0..world_size() - 1."""
    return 0 if _group is None else _group.rank


def local_rank() -> int:
    """Number of this process on its machine."""
    return 0 if _group is None else _group.local_rank


def is_main() -> bool:
    """Whether this is the process that prints, logs and writes the run's files."""
    return rank() == 0


def start() -> None:
    """Join the other processes, if torchrun started any; all but the first print nothing from then on.

    Tensors on CUDA devices travel by NCCL, all others by Gloo. Called again, it does nothing.

    Raises:
        RuntimeError: the others cannot be reached, or not all variables are set that torchrun sets.
    """
    global _group
    n = int(os.environ.get("WORLD_SIZE", "1"))
    if _group is not None or n < 2:
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    try:
        dist.init_process_group(backend, timeout=TIMEOUT)
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        # two connections of its own: one that blocks must not keep the watching one from looking
        stores = [dist.TCPStore(address, port, is_master=False, wait_for_workers=False) for _ in range(2)]
    except (RuntimeError, ValueError, KeyError) as error:
        raise RuntimeError(
            f"WORLD_SIZE is {n}, but these processes cannot be joined ({first_line(error)}); start them with torchrun."
        ) from error
    _group = Group(dist.get_rank(), n, int(os.environ.get("LOCAL_RANK", "0")), stores[0])
    threading.Thread(target=_watch, args=(stores[1],), daemon=True).start()
    sys.excepthook = _fail_with_traceback
    atexit.register(dist.destroy_process_group)
    if not is_main():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  open until the process ends
        sys.stderr = _NoTerminal(sys.stderr)  # type: ignore[assignment]
        warnings.simplefilter("ignore")


def own_device(device: torch.device) -> torch.device:
    """This process's own device of a kind.

    Raises:
        RuntimeError: there are fewer GPUs than processes on this machine, or the kind cannot be shared out.
    """
    if _group is None or device.type == "cpu":
        return device
    if device.type != "cuda":
        raise RuntimeError(f"Several processes compute on cuda or cpu, not on {device.type}; set DEVICE to cpu.")
    n = torch.cuda.device_count()
    if _group.local_rank >= n:
        raise RuntimeError(
            f"torchrun started at least {_group.local_rank + 1} processes on this machine, which has {n} GPUs that "
            "torch can use; start one a GPU, or set DEVICE to cpu."
        )
    torch.cuda.set_device(_group.local_rank)
    return torch.device("cuda", _group.local_rank)


def fail(sentence: str, trace: str = "") -> int:
    """Say on stderr why the run failed, with the traceback in its log; gives the exit status.

    Among several processes only the first that fails speaks, and this call ends the process; the others follow,
    whatever they are waiting for.

    Args:
        sentence: what to say.
        trace: what to write to the log; "" if there is none yet.
    """
    if _group is None:
        _log(trace)
        print(sentence, file=sys.stderr)
        return 1
    told = f"Process {rank()} of {world_size()} failed.\n{trace or sentence}\n"
    first = True
    with contextlib.suppress(RuntimeError):  # the store is gone with the process that held it
        first = _group.store.compare_set(_key("failed"), "", told).decode() == told
    if first:
        print(sentence, file=sys.stderr)
        _hear(told, _group.store)
    with contextlib.suppress(RuntimeError):  # torchrun ends the others as soon as one is gone: let the log be written
        _group.store.wait([_key("heard")], datetime.timedelta(seconds=2 * GRACE_SECONDS))
    _end()


def _fail_with_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """An error that nobody expected."""
    text = "".join(traceback.format_exception(kind, error, trace)).rstrip()
    fail(text, text)


def _watch(store: Any) -> None:
    """Runs in a thread: end this process soon after another one has failed; its main thread may wait for that one."""
    told = ""
    while not told:
        time.sleep(WATCH_SECONDS)
        try:
            if store.check([_key("failed")]):
                told = store.get(_key("failed")).decode()
        except RuntimeError:
            told = "The process that started this run is gone.\n"
    if not told.startswith("Process 0 "):
        _hear(told, store)
    time.sleep(GRACE_SECONDS)
    _end()


def _hear(told: str, store: Any) -> None:
    """The first process writes a failure to its log, and tells that it has."""
    if is_main():
        _log(told)
        with contextlib.suppress(RuntimeError):
            store.set(_key("heard"), "")


def _end() -> NoReturn:
    """End at once: an orderly end would wait for operations that never finish."""
    sys.stdout.flush()
    sys.stderr.flush()
    if is_main():
        time.sleep(WATCH_SECONDS)  # without torchrun this process holds the store that the others still read
    os._exit(1)


def _key(name: str) -> str:
    """Under which the store keeps the first failure, or that it is in the log; a restart by torchrun begins anew."""
    return f"dassl/{name}/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"


def _log(text: str) -> None:
    """Add to the log file, if the run has one."""
    file = getattr(sys.stdout, "file", None)
    if text and file is not None:
        with contextlib.suppress(OSError):  # perhaps the very reason of the failure
            file.write(text)


def first_line(error: BaseException) -> str:
    """What an error of torch.distributed says, without the place in its source and the advice behind."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return re.sub(r"^\[[^]]*\] *", "", line).split(". ")[0].rstrip(".")


class _NoTerminal:
    """A stream that says it is no terminal, so that only the first process shows progress bars."""

    def __init__(self, stream: Any):
        self.stream = stream

    def isatty(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
