"""Why a measurement was not made."""


class NotMeasured(ValueError):
    """Why a check says nothing of a run, in a sentence that stands in its record."""
