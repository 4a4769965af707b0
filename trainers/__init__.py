"""The methods. Importing this package registers every trainer; a new method is one file and one line here."""

from trainers import (
    clipfit,
    cocoop,
    coop,
    ivlp,
    linear_probe,
    maple,
    promptkd,
    promptsrc,
    spotlighter,
    spt,
    textpriors,
    textrefiner,
    vpt,
    zsclip,
)

__all__ = [
    "clipfit",
    "cocoop",
    "coop",
    "ivlp",
    "linear_probe",
    "maple",
    "promptkd",
    "promptsrc",
    "spotlighter",
    "spt",
    "textpriors",
    "textrefiner",
    "vpt",
    "zsclip",
]
