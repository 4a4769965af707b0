"""Annotations in MATLAB files, which some data sets' authors publish."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clip.transfer import is_web_page
from datasets.errors import DatasetError, DatasetMissing


def read_mat(path: Path, variable: str) -> Any:
    """One variable of a MATLAB 5 file; structures become records, single-element axes are left out.

    Raises:
        DatasetMissing: there is no such file.
        DatasetError: it is no such file, damaged, or without the variable; the sentence says which.
    """
    from scipy.io import loadmat, whosmat  # rarely needed

    if not path.is_file():
        raise DatasetMissing(f"No annotation file at {path}; put the official one there.")
    start = path.read_bytes()[:128]
    if not start:
        reason = "it is empty"
    elif is_web_page(start):
        reason = "it is a web page: its download failed"
    else:
        try:
            found = [name for name, *_ in whosmat(path)]
            if variable in found:
                return loadmat(path, squeeze_me=True, variable_names=[variable])[variable]
            reason = f"it has no variable {variable!r}, only {', '.join(found) or 'none'}"
        except NotImplementedError:
            reason = "it is a MATLAB 7.3 file, where one of version 5 is expected"
        except Exception as error:  # scipy's parser raises whatever it stumbles over
            reason = f"it is truncated or damaged: {' '.join(str(error).split())}"
    raise DatasetError(f"Cannot read {path} ({reason}); get the official file again.")
