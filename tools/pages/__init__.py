"""The static page that tools/report.py writes: what stands on it, and how it becomes HTML."""
