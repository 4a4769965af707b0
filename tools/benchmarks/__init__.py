"""What `python -m tools.benchmark` is made of.

`subjects` are the things measured, `plain` the yardstick among them; `timing` and `memory` measure; `targets` holds the
figures to reach; `report`, `table4`, `figure` and `trace` show.
"""
