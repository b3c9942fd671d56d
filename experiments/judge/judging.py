"""Ask the judge everything that is not in the journal yet, several requests at a time."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.judge.endpoint import Endpoint, JudgeRefused, JudgeUnavailable, Reply
from experiments.judge.journal import Journal
from experiments.judge.prompts import Question, Request, Turns, pair_requests, single_requests
from experiments.judge.settings import JudgeSettings
from experiments.judge.verdicts import rating, winner

Prompts = Mapping[str, Mapping[str, str]]
Report = Callable[[str], None]


@dataclass(frozen=True)
class Judged:
    """The verdicts that there are, in the order of the questions, and how many requests have none."""

    rows: list[dict[str, Any]]
    unanswered: int


def grade(
    questions: Sequence[Question],
    answers: Mapping[int, Turns],
    prompts: Prompts,
    settings: JudgeSettings,
    file: Path,
    report: Report = print,
) -> Judged:
    """Judge each turn of each question: rows with `score` (1 to 10, or None with a `reason`); `file` keeps them.

    Requests that stay without an answer have no row; `report` gets a sentence for each, and asking again asks those
    alone. Raises ValueError for missing answers, JudgeRefused when the endpoint refuses the key, model or request.
    """
    return _ask_all(single_requests(questions, answers, prompts), settings, file, report)


def compare(
    questions: Sequence[Question],
    answers: tuple[Mapping[int, Turns], Mapping[int, Turns]],
    prompts: Prompts,
    settings: JudgeSettings,
    file: Path,
    report: Report = print,
) -> Judged:
    """Judge each question and turn in both orders of the two models' answers: rows with `winner`: a, b, tie or None.

    Otherwise as `grade`.
    """
    return _ask_all(pair_requests(questions, answers, prompts), settings, file, report)


def _ask_all(requests: list[Request], settings: JudgeSettings, file: Path, report: Report) -> Judged:
    journal = Journal(file)
    keys = [request.key(settings) for request in requests]
    todo = [(key, request) for key, request in zip(keys, requests, strict=True) if key not in journal.rows]
    report(f"{len(requests)} requests: {len(requests) - len(todo)} answered before, {len(todo)} to ask")
    if todo:
        _ask(dict(todo), Endpoint(settings), journal, settings, report)
    rows = [journal.rows[key] for key in keys if key in journal.rows]
    return Judged(rows, len(keys) - len(rows))


def _ask(
    todo: dict[str, Request], endpoint: Endpoint, journal: Journal, settings: JudgeSettings, report: Report
) -> None:
    with ThreadPoolExecutor(settings.workers) as pool:
        futures = {pool.submit(endpoint.ask, request.messages): key for key, request in todo.items()}
        try:
            for future in as_completed(futures):
                key = futures[future]
                try:
                    journal.append(_row(key, todo[key], future.result(), settings))
                except JudgeUnavailable as error:
                    report(f"question {todo[key].question.question_id}, turn {todo[key].turn}: {error}")
        except (JudgeRefused, KeyboardInterrupt):
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _row(key: str, request: Request, reply: Reply, settings: JudgeSettings) -> dict[str, Any]:
    verdict: dict[str, Any]
    if request.order == "single":
        value, reason = rating(reply.text)
        verdict = {"score": value}
    else:
        value, reason = winner(reply.text, request.order)
        verdict = {"winner": value, "order": request.order}
    if reason and reply.finish_reason == "length":
        reason += f" (cut at judge.max_tokens={settings.max_tokens})"
    return {
        "key": key,
        "question_id": request.question.question_id,
        "category": request.question.category,
        "turn": request.turn,
        "judge": settings.model,
        "prompt": request.prompt_name,
        "judgment": reply.text,
        "reason": reason,
        **verdict,
    }
