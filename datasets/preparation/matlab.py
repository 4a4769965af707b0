"""Reading a variable of a MATLAB file, with a sentence for each way in which such files are broken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clip.transfer import is_web_page


def read_mat(path: Path, variable: str) -> Any:
    """The array `variable` of a MATLAB file up to version 7, singleton axes removed.

    Raises:
        ValueError: the file is empty, truncated, a web page, of version 7.3, or lacks the variable.
        RuntimeError: SciPy is not installed.
    """
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise RuntimeError(
            f"Reading {path} needs SciPy, which is not installed; run: pip install -r requirements.txt."
        ) from error
    head = path.read_bytes()[:1024]
    if not head:
        raise ValueError(f"{path} is empty (0 bytes); get it again.")
    if is_web_page(head):
        raise ValueError(f"{path} is a web page, not a MATLAB file: the download failed; get it again.")
    try:
        content = loadmat(path, squeeze_me=True)
    except NotImplementedError as error:
        raise ValueError(f"{path} is a MATLAB 7.3 file, expected one of version 5 to 7.") from error
    except (
        Exception
    ) as error:  # SciPy's reader lets through whatever the damage leads to: OSError, TypeError, zlib.error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} is truncated or no MATLAB file ({reason:.200}); get it again.") from error
    if variable not in content:
        found = ", ".join(sorted(name for name in content if not name.startswith("__"))) or "nothing"
        raise ValueError(f"{path} should hold the variable {variable}, but holds {found}.")
    return content[variable]
