"""Getting the data sets onto this machine: the catalogue of sources, downloads, safe unpacking, arrangement.

`tools/prepare_data.py` is the command line. Pictures are never redistributed: every file comes from where its owners,
or a named mirror, offer it.
"""
