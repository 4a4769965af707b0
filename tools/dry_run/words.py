"""How a dry run writes numbers, durations and sizes."""


def plural(n: int, noun: str, several: str = "") -> str:
    """`1 step`, `1,200 steps`; `several` is the noun's plural where it does not end in a single s."""
    return f"{n:,} {noun if n == 1 else several or f'{noun}s'}"


def seconds(value: float) -> str:
    """A duration, as `0.012 s`, `1.2 s`, `62 s`, `5 min` or `2 h 30 min`."""
    if value < 10:
        return f"{value:.3f} s" if value < 1 else f"{value:.1f} s"
    if value < 120:
        return f"{value:.0f} s"
    minutes = round(value / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def gib(n_bytes: float) -> str:
    """Memory."""
    return f"{n_bytes / 2**30:.1f} GiB"
