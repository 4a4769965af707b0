"""Figures of runs: what is computed and how it is drawn, one question a file; drawing functions take plain arrays."""
