"""Readers, one data set a file, registered in `dassl.data.datasets`; importing this package registers them."""

from datasets import shapes

__all__ = ["shapes"]
