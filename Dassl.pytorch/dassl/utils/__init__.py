"""Small helpers that everything else in `dassl` may import; they import nothing of the other rooms."""
# ruff: noqa: F403 -- each module names what it exports in __all__

from .logger import *
from .meters import *
from .registry import *
from .tools import *
from .torchtools import *
