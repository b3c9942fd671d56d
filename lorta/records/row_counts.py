"""How many rows of a split were read, how many are used, and why the rest is not: for plan, record and table."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

CAPS = {"train": "data.max_train_samples", "evaluation": "data.max_eval_samples"}
KEEP, HOLDOUT = "task.source.keep", "data.holdout"
ASKED_FOR = (*CAPS.values(), KEEP, HOLDOUT)  # reasons that are settings; any other is a loss that nobody asked for
ANSWER_CUT = "the end of an answer is cut at data.max_length"
ANSWER_EMPTY = "the answer is empty: only its end is learnt or scored"
TEXT_CUT = "the end of a text is cut at data.max_length"
QUESTION_CUT = "the beginning of the prompt or the end of an answer is cut at data.max_length"
MOST_LOST = 0.05  # of the rows that were read or used, before a sweep says so on the screen


@dataclass(frozen=True)
class RowCount:
    """Rows that were read, how many of them were dropped for which reason, and what is said of some that are used.

    Two counts are equal where the same number of rows is used for the same reasons, whatever is said of them.
    """

    read: int
    dropped: Mapping[str, int] = field(default_factory=dict[str, int])
    noted: Mapping[str, int] = field(default_factory=dict[str, int], compare=False)  # of the rows used

    @property
    def used(self) -> int:
        """The rows that are left."""
        return self.read - sum(self.dropped.values())

    @property
    def lost_share(self) -> float:
        """The fraction of the rows read that was dropped without being asked for, 0 to 1."""
        lost = sum(number for reason, number in self.dropped.items() if reason not in ASKED_FOR)
        return lost / self.read if self.read else 0.0

    @property
    def noted_share(self) -> float:
        """The largest fraction of the rows used of which one thing is said, 0 to 1."""
        return max(self.noted.values(), default=0) / self.used if self.used else 0.0

    @property
    def in_full(self) -> str:
        """The count as a text, with what is said of the rows used."""
        noted = "; ".join(f"{number:,}: {reason}" for reason, number in self.noted.items())
        return f"{self}; of the rows used, {noted}" if noted else str(self)

    def without(self, reason: str, number: int) -> "RowCount":
        """Return the count after so many more rows were dropped for a reason."""
        if number == 0:
            return self
        return replace(self, dropped={**self.dropped, reason: self.dropped.get(reason, 0) + number})

    def noting(self, reason: str, number: int) -> "RowCount":
        """Return the count after something was said of so many of the rows used."""
        return self if number == 0 else replace(self, noted={**self.noted, reason: number})

    def at_most(self, most: int | None, use: str) -> "RowCount":
        """Return the count after the cap of a split, named by its use."""
        return self if most is None else self.without(CAPS[use], max(0, self.used - most))

    def __str__(self) -> str:
        reasons = "; ".join(f"{number:,}: {reason}" for reason, number in self.dropped.items())
        if reasons:
            return f"{self.used:,} of {self.read:,} rows used ({reasons})"
        return "1 row, used" if self.read == 1 else f"{self.read:,} rows, all used"


class RowsUnusable(ValueError):
    """Rows that a run cannot go on with. `counts` says what became of them, for its record: split -> count."""

    def __init__(self, sentence: str, counts: Mapping[str, RowCount]) -> None:
        """Take what is wrong, and the counts as far as they are known."""
        super().__init__(sentence)
        self.counts = counts


def lost_sentences(task: str, counts: Mapping[str, RowCount]) -> list[str]:
    """Return a sentence for each split of which more than MOST_LOST was dropped unasked, or is noted."""
    return [
        f"{task}, {use}: {count.in_full}"
        for use, count in counts.items()
        if max(count.lost_share, count.noted_share) > MOST_LOST
    ]
