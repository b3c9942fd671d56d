"""A judge that is busy, slow, broken or wordy: what is asked again, what is kept, what is said."""

import json
import time
import traceback

import pytest

from experiments.judge.endpoint import JudgeRefused
from experiments.judge.judging import compare, grade
from experiments.judge.prompts import PROMPT_NAMES, Question
from experiments.judge.settings import JudgeSettings, judge_settings
from lorta.config.places import CONF
from tests.experiments.judge.endpoint import PlayedEndpoint, completion

QUESTIONS = [Question(number, "writing", (f"first {number}", f"second {number}")) for number in (81, 82, 83)]
ANSWERS = {
    question.question_id: (f"one {question.question_id}", f"two {question.question_id}") for question in QUESTIONS
}
PROMPTS = {
    name: {"system_prompt": "judge", "prompt_template": template}
    for name in PROMPT_NAMES
    for template in [
        ("{question_1}|{question_2}|" if "multi" in name else "{question}|")
        + ("{ref_answer_1}|" if "math" in name else "")
        + {
            (False, False): "{answer}",
            (False, True): "{answer_1}|{answer_2}",
            (True, False): "{answer_a}|{answer_b}",
            (True, True): "{answer_a_2}|{answer_b_2}",
        }["pair" in name, "multi" in name]
    ]
}


def settings(endpoint: PlayedEndpoint, *words: str) -> JudgeSettings:
    """One request at a time: the order of what is asked is then known."""
    given = ["judge=openai", f"judge.base_url={endpoint.base_url}", "judge.model=judge", "judge.workers=1", *words]
    return judge_settings(given, CONF / "judge")


def run(play, file, *words, questions=QUESTIONS):
    said = []
    with PlayedEndpoint(play) as endpoint:
        judged = grade(questions, ANSWERS, PROMPTS, settings(endpoint, *words), file, said.append)
    return judged, endpoint, said


def test_each_turn_of_each_question_is_graded_once(tmp_path):
    judged, endpoint, _ = run(lambda text, before: completion("fine [[6]]"), tmp_path / "j.jsonl")
    assert [(row["question_id"], row["turn"], row["score"]) for row in judged.rows] == [
        (question.question_id, turn, 6.0) for question in QUESTIONS for turn in (1, 2)
    ]
    assert judged.unanswered == 0 and set(endpoint.asked.values()) == {1}
    assert {(request["model"], request["temperature"], request["max_tokens"]) for request in endpoint.requests} == {
        ("judge", 0.0, 2048)
    }


def test_the_second_time_nothing_is_asked(tmp_path):
    first, _, _ = run(lambda text, before: completion("[[6]]"), tmp_path / "j.jsonl")
    again, endpoint, said = run(lambda text, before: completion("[[1]]"), tmp_path / "j.jsonl")
    assert again.rows == first.rows and not endpoint.asked
    assert said == ["6 requests: 6 answered before, 0 to ask"]


def test_another_answer_judge_or_temperature_is_asked_anew(tmp_path):
    run(lambda text, before: completion("[[6]]"), tmp_path / "j.jsonl")
    for words in (["judge.model=other"], ["judge.temperature=0.5"]):
        _, endpoint, _ = run(lambda text, before: completion("[[6]]"), tmp_path / "j.jsonl", *words)
        assert endpoint.asked.total() == 6


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_or_broken_endpoint_is_asked_again(tmp_path, status):
    def play(text, before):
        return completion("[[5]]") if before else (status, {"retry-after": "0.05"}, "{}")

    judged, endpoint, _ = run(play, tmp_path / "j.jsonl", questions=QUESTIONS[:1])
    assert [row["score"] for row in judged.rows] == [5.0, 5.0]
    assert set(endpoint.asked.values()) == {2}


def test_retry_after_is_waited_for(tmp_path):
    def play(text, before):
        return completion("[[5]]") if before else (429, {"retry-after": "1.2"}, "{}")

    _, endpoint, _ = run(play, tmp_path / "j.jsonl", questions=[Question(81, "writing", ("q",))])
    assert endpoint.times[1] - endpoint.times[0] >= 1.2


def test_without_retry_after_the_waits_grow(tmp_path):
    def play(text, before):
        return completion("[[5]]") if before == 2 else (500, {}, "{}")

    _, endpoint, _ = run(play, tmp_path / "j.jsonl", questions=[Question(81, "writing", ("q",))])
    first, second = (later - earlier for earlier, later in zip(endpoint.times, endpoint.times[1:], strict=False))
    assert first > 0.37 and second > 1.3 * first  # 0.5 s and 1 s, each less up to a quarter


def test_a_slow_answer_is_given_up_and_asked_again(tmp_path):
    def play(text, before):
        if not before:
            time.sleep(1.0)
        return completion("[[5]]")

    words = ("judge.timeout_s=0.2", "judge.max_retries=1")
    judged, endpoint, _ = run(play, tmp_path / "j.jsonl", *words, questions=QUESTIONS[:1])
    assert [row["score"] for row in judged.rows] == [5.0, 5.0]
    assert set(endpoint.asked.values()) == {2}


@pytest.mark.parametrize(
    "broken",
    [(200, {}, '{"choices": ['), (200, {}, "{}"), (200, {"content-type": "text/plain"}, "hello"), completion(None)],
    ids=["cut JSON", "no choices", "no JSON", "no text"],
)
def test_an_answer_that_is_no_completion_is_left_for_the_next_time(tmp_path, broken):
    def play(text, before):
        return broken if text.startswith("first 82|one") else completion("[[5]]")

    judged, _, said = run(play, tmp_path / "j.jsonl")
    assert (len(judged.rows), judged.unanswered) == (5, 1)
    assert [sentence for sentence in said if "question 82, turn 1" in sentence]
    again, endpoint, _ = run(lambda text, before: completion("[[2]]"), tmp_path / "j.jsonl")
    assert again.unanswered == 0 and list(endpoint.asked) == ["first 82|one 82"]


def test_a_text_without_a_score_is_kept_with_its_reason(tmp_path):
    def play(text, before):
        return completion("I cannot say", "length") if text.startswith("first 81|one") else completion("[[5]]")

    judged, _, _ = run(play, tmp_path / "j.jsonl")
    assert judged.rows[0]["score"] is None
    assert judged.rows[0]["reason"] == "no [[n]] in the judge's text (cut at judge.max_tokens=2048)"


def test_a_refused_key_stops_everything_and_is_never_shown(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("JUDGE_KEY", "sk-very-secret")

    def play(text, before):
        return 401, {}, json.dumps({"error": {"message": f"wrong key {endpoint.headers[-1]['authorization']}"}})

    said = []
    with PlayedEndpoint(play) as endpoint, pytest.raises(JudgeRefused, match=r"401.*JUDGE_KEY") as refusal:
        chosen = settings(endpoint, "judge.api_key_variable=JUDGE_KEY")
        grade(QUESTIONS, ANSWERS, PROMPTS, chosen, tmp_path / "j.jsonl", said.append)
    assert endpoint.headers[0]["authorization"] == "Bearer sk-very-secret"
    assert endpoint.asked.total() <= 2  # the one, and perhaps one that a free worker had begun
    shown = "".join(traceback.format_exception(refusal.value)) + "".join(said) + "".join(capfd.readouterr())
    assert "wrong key" in shown and "sk-very-secret" not in shown


def test_the_key_is_in_no_file(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    _, endpoint, _ = run(lambda text, before: completion("[[5]]"), tmp_path / "j.jsonl")
    assert endpoint.headers[0]["authorization"] == "Bearer sk-very-secret"
    assert all("sk-very-secret" not in file.read_text() for file in tmp_path.rglob("*") if file.is_file())


def test_pairs_are_judged_in_both_orders(tmp_path):
    other = {number: ("uno", "due") for number in ANSWERS}
    said = []
    with PlayedEndpoint(lambda text, before: completion("[[A]]" if text.endswith("|uno") else "[[B]]")) as endpoint:
        judged = compare(
            QUESTIONS[:1], (ANSWERS, other), PROMPTS, settings(endpoint), tmp_path / "p.jsonl", said.append
        )
    assert [(row["turn"], row["order"], row["winner"]) for row in judged.rows] == [
        (1, "ab", "a"),
        (1, "ba", "a"),
        (2, "ab", "b"),
        (2, "ba", "a"),
    ]


def test_equal_answers_are_still_judged_in_both_orders(tmp_path):
    with PlayedEndpoint(lambda text, before: completion("[[A]]")) as endpoint:
        judged = compare(QUESTIONS[:1], (ANSWERS, ANSWERS), PROMPTS, settings(endpoint), tmp_path / "p.jsonl")
    assert [row["winner"] for row in judged.rows] == ["a", "b", "a", "b"]


def test_a_missing_answer_is_a_sentence_before_anything_is_asked(tmp_path):
    with (
        PlayedEndpoint(lambda text, before: completion("[[A]]")) as endpoint,
        pytest.raises(ValueError, match=r"no answer .* to 1 of 3 questions: 83"),
    ):
        grade(QUESTIONS, {81: ("a", "b"), 82: ("a", "b")}, PROMPTS, settings(endpoint), tmp_path / "j.jsonl")
    assert not endpoint.asked


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["judge=opneai"], "no such judge; did you mean openai"),
        (["judge=openai"], "needs judge.base_url=ADDRESS and judge.model=NAME"),
        (["judge.modle=x"], "no such key; did you mean judge.model"),
        (["judge.workers=0"], "judge.workers=0"),
        (["judge.max_tokens=many"], "judge.max_tokens='many'"),
    ],
)
def test_wrong_settings_are_sentences(words, sentence):
    with pytest.raises(ValueError, match=sentence):
        judge_settings(words, CONF / "judge")


def test_no_judge_is_the_default_and_says_how_to_choose_one(tmp_path):
    with pytest.raises(ValueError, match="judge=none: choose one"):
        grade(QUESTIONS, ANSWERS, PROMPTS, judge_settings([], CONF / "judge"), tmp_path / "j.jsonl")
