"""From a judge's text to a number or a winner, and from many of them to means and win rates. Pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, Literal

RATING = re.compile(r"\[\[(\d+(?:\.\d+)?)\]\]")
VERDICT = re.compile(r"\[\[([ABC])\]\]")
LOWEST, HIGHEST = 1.0, 10.0
Winner = Literal["a", "b", "tie"]


def rating(text: str) -> tuple[float | None, str | None]:
    """Return the first [[n]] of a judge's text, or None and why there is none.

    FastChat falls back on a single bracket, which also finds footnotes and list numbers; this does not.
    """
    match = RATING.search(text)
    if match is None:
        return None, "no [[n]] in the judge's text"
    value = float(match[1])
    if not LOWEST <= value <= HIGHEST:
        return None, f"[[{match[1]}]] is not between 1 and 10"
    return value, None


def winner(text: str, order: str) -> tuple[Winner | None, str | None]:
    """Return whose answer won, with the places of order "ba" swapped back, or None and why there is no verdict.

    FastChat takes A when a text says both [[A]] and [[B]]; here that is no verdict.
    """
    verdicts = set(VERDICT.findall(text))
    if len(verdicts) != 1:
        said = " and ".join(f"[[{letter}]]" for letter in sorted(verdicts))
        return None, f"the judge's text says {said}" if said else "no [[A]], [[B]] or [[C]] in the judge's text"
    letter = verdicts.pop()
    if letter == "C":
        return "tie", None
    return ("a" if (letter == "A") == (order == "ab") else "b"), None


def category_means(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float | int | None]]:
    """Return category -> mean score (over both turns), by turn, rows scored and rows without a score.

    The last entry is "all": the mean over all rows with a score, as in FastChat's show_result.
    """
    everything = list(rows)
    names = [*sorted({str(row["category"]) for row in everything}), "all"]
    return {name: _means([r for r in everything if name in ("all", r["category"])]) for name in names}


def _means(rows: Sequence[Mapping[str, Any]]) -> dict[str, float | int | None]:
    def mean(turns: tuple[int, ...]) -> float | None:
        values = [row["score"] for row in rows if row["turn"] in turns and row["score"] is not None]
        return fmean(values) if values else None

    scored = sum(row["score"] is not None for row in rows)
    return {
        "score": mean((1, 2)),
        "turn_1": mean((1,)),
        "turn_2": mean((2,)),
        "scored": scored,
        "unscored": len(rows) - scored,
    }


def win_rates(rows: Iterable[Mapping[str, Any]]) -> dict[str, float | int | None]:
    """Return wins, losses and ties of the first model, and its win rate with a tie counted as half a win.

    Each question and turn is judged in both orders. Verdicts that differ between the orders are a tie (position bias;
    `inconsistent` counts them), and a game of which one order has no verdict is left out (`undecided`): FastChat,
    show_result.py.
    """
    games: dict[tuple[int, int], dict[str, Winner | None]] = {}
    for row in rows:
        games.setdefault((row["question_id"], row["turn"]), {})[row["order"]] = row["winner"]
    pairs = [(game.get("ab"), game.get("ba")) for game in games.values()]
    decided = [(first, second) for first, second in pairs if first is not None and second is not None]
    won = sum(first == second == "a" for first, second in decided)
    lost = sum(first == second == "b" for first, second in decided)
    ties = len(decided) - won - lost
    return {
        "wins": won,
        "losses": lost,
        "ties": ties,
        "inconsistent": sum(first != second for first, second in decided),
        "undecided": len(pairs) - len(decided),
        "win_rate": (won + 0.5 * ties) / len(decided) if decided else None,
    }
