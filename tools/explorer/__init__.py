"""A page on which people try trained runs on pictures of their own; `tools/app.py` starts it."""
