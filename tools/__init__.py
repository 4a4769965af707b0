"""Command lines that a person runs, and the libraries they share; run one as `python -m tools.NAME`."""
