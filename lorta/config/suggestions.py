"""What to say of a name that does not exist."""

import difflib
from collections.abc import Sequence


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Return "; did you mean X?" for close names, or the whole list when there is none."""
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    close = close or [name for name in known if word and name.startswith(word)]
    return f"; did you mean {' or '.join(close)}?" if close else f"; there are: {', '.join(known)}"
