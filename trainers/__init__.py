"""The methods. Importing this package registers every trainer; a new method is one file and one line here."""

from trainers import coop, spotlighter, zsclip

__all__ = ["coop", "spotlighter", "zsclip"]
