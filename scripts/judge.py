"""Have answers judged by a model behind an OpenAI-compatible endpoint, and draw the table of their grades.

DATA=data/instruct/mt_bench    # FastChat's question.jsonl, reference_gpt4.jsonl and judge_prompts.jsonl
JUDGE="judge=openai judge.base_url=http://localhost:8000/v1 judge.model=NAME"     # conf/judge/openai.yaml has the rest
python scripts/judge.py grade ANSWERS.jsonl --data $DATA $JUDGE                   # into ANSWERS.grades.jsonl
python scripts/judge.py compare A.jsonl B.jsonl --data $DATA $JUDGE               # win rate of A, both orders
python scripts/judge.py table NAME=A.grades.jsonl NAME=B.grades.jsonl --to results/mt_bench

The key is read from the variable OPENAI_API_KEY (judge.api_key_variable names another) and written nowhere. The
same command again asks only what has no answer yet. Exit status: 0, 1 when some requests have none, 2 when none can.
"""

import argparse
import json
import sys
from pathlib import Path

import lorta.config  # noqa: F401  lets experiments and baselines be imported

# isort: split
from experiments.judge.endpoint import JudgeRefused
from experiments.judge.judging import compare, grade
from experiments.judge.prompts import load_answers, load_prompts, load_questions
from experiments.judge.report import write_report
from experiments.judge.settings import judge_settings
from experiments.judge.verdicts import category_means, win_rates
from lorta.config.places import CONF


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["grade", "compare", "table"])
    parser.add_argument("words", nargs="+", metavar="FILE|KEY=VALUE", help="answers, and settings of the judge")
    parser.add_argument("--data", type=Path, default=Path("."), help="folder of MT-Bench's three files")
    parser.add_argument("--questions", type=Path, help="a file of questions, instead of DATA's")
    parser.add_argument("--to", type=Path, help="file for the verdicts, or folder for the table")
    return parser.parse_intermixed_args()


def main() -> int:
    """Do the command."""
    arguments = parse_arguments()
    try:
        if arguments.command == "table":
            files = {name: Path(file) for name, _, file in (word.partition("=") for word in arguments.words)}
            print(write_report(files, arguments.to or Path("results/mt_bench")), end="")
            return 0
        return _judge(arguments)
    except (ValueError, JudgeRefused) as error:
        print(error, file=sys.stderr)
        return 2


def _judge(arguments: argparse.Namespace) -> int:
    files = [Path(word) for word in arguments.words if not word.startswith("judge")]
    settings = judge_settings([word for word in arguments.words if word.startswith("judge")], CONF / "judge")
    expected = 1 if arguments.command == "grade" else 2
    if len(files) != expected:
        raise ValueError(f"{arguments.command} takes {expected} file(s) of answers, got {len(files)}")
    references = arguments.data / "reference_gpt4.jsonl"
    questions = load_questions(arguments.questions or arguments.data / "question.jsonl", references)
    prompts = load_prompts(arguments.data / "judge_prompts.jsonl")
    answers = [load_answers(file) for file in files]
    if arguments.command == "grade":
        judged = grade(questions, answers[0], prompts, settings, arguments.to or files[0].with_suffix(".grades.jsonl"))
        summary = category_means(judged.rows)["all"]
    else:
        file = arguments.to or files[0].with_suffix(f".against-{files[1].stem}.jsonl")
        judged = compare(questions, (answers[0], answers[1]), prompts, settings, file)
        summary = win_rates(judged.rows)
    print(json.dumps({"unanswered": judged.unanswered} | summary))
    return 1 if judged.unanswered else 0


if __name__ == "__main__":
    sys.exit(main())
