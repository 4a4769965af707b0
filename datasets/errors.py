"""What readers and the preparation tool raise: one sentence that says where, what is wrong, and what to do."""

from __future__ import annotations


class DatasetError(ValueError):
    """A data set that cannot be used as it is: damaged, incomplete, or laid out in another way."""


class DatasetMissing(DatasetError, FileNotFoundError):
    """A folder or file of a data set that is not there at all."""


class DatasetLayout(DatasetMissing):
    """What is looked for lies under another name or in another arrangement; the sentence says what to move."""
