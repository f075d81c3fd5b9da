"""What is said to a person at the terminal when their input cannot be used."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in what the user gave us; printed as one line, exit code 2, no traceback.

    The message says what was found, where, what was expected and, where there is one, the nearest
    valid name. Mistakes of ours are `assert`s or ordinary exceptions, never this.
    """


def nearest(name: str, valid: Iterable[str]) -> str:
    """Hint at the closest valid name, or list what is valid when nothing comes close.

    Returns a clause to append to a message: `did you mean 'steps'?` or `valid: a, b, c`.
    """
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return f"valid: {shown}" if names else "none are valid here"
