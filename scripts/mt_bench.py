"""Answer MT-Bench's questions with a run's model, let a judge grade or compare answers, and draw the table.

DATA=data/instruct/mt_bench   # question.jsonl, reference_gpt4.jsonl and judge_prompts.jsonl, of FastChat's repository
python scripts/mt_bench.py answer runs/SIGNATURE --data $DATA --template alpaca           # runs/SIGNATURE/mt_bench.jsonl
python scripts/mt_bench.py grade ANSWERS.jsonl --data $DATA judge=openai judge.base_url=URL judge.model=NAME
python scripts/mt_bench.py compare ANSWERS_A.jsonl ANSWERS_B.jsonl --data $DATA judge=openai ...
python scripts/mt_bench.py table NAME=GRADES.jsonl NAME=GRADES.jsonl --to results/mt_bench

--questions FILE takes other questions than DATA's, also preference rows with a column `prompt` (the held-out pairs of
task=dpo). Words such as model.path=FOLDER say where a run's files are. Every command may be killed and given again.
"""

import argparse
import json
import sys
from pathlib import Path

from experiments.judge.answers import answer_all, answer_settings
from experiments.judge.endpoint import JudgeRefused
from experiments.judge.judging import Judged, compare, grade
from experiments.judge.prompts import load_answers, load_prompts, load_questions
from experiments.judge.report import write_report
from experiments.judge.settings import judge_settings
from experiments.judge.verdicts import category_means, win_rates
from lorta.harness.cli import CONF
from lorta.harness.reload import reload_run


def parse_arguments() -> argparse.Namespace:
    """Parse the command line; what is neither file nor option is a word such as judge.model=NAME."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["answer", "grade", "compare", "table"])
    parser.add_argument("words", nargs="+", metavar="FILE|KEY=VALUE")
    parser.add_argument("--data", type=Path, default=Path("."), help="folder of MT-Bench's three files")
    parser.add_argument("--questions", type=Path, help="questions, if not DATA/question.jsonl")
    parser.add_argument("--template", default="alpaca", help="a name of conf/mt_bench/")
    parser.add_argument("--untouched", action="store_true", help="answer with the run's model, its adapter left out")
    parser.add_argument("--to", type=Path, help="file (answer, grade, compare) or folder (table) to write")
    return parser.parse_intermixed_args()


def main() -> int:
    """Do the command; 1 when requests stayed without an answer, 2 for what cannot be done."""
    arguments = parse_arguments()
    try:
        if arguments.command == "table":
            named = dict(word.partition("=")[::2] for word in arguments.words)
            files = {name: Path(file) for name, file in named.items()}
            print(write_report(files, arguments.to or Path("results/mt_bench")), end="")
            return 0
        return _with_questions(arguments)
    except (ValueError, JudgeRefused) as error:
        print(error, file=sys.stderr)
        return 2


def _with_questions(arguments: argparse.Namespace) -> int:
    files = [Path(word) for word in arguments.words if "=" not in word]
    words = [word for word in arguments.words if "=" in word]
    data, references = arguments.data, arguments.data / "reference_gpt4.jsonl"
    questions = load_questions(
        arguments.questions or data / "question.jsonl", references if references.is_file() else None
    )
    if arguments.command == "answer":
        run = reload_run(files[0], CONF, words, arguments.untouched)
        name = files[0].name + ("-untouched" if arguments.untouched else "")
        file = arguments.to or files[0] / f"mt_bench{'-untouched' * arguments.untouched}.jsonl"
        settings = answer_settings(arguments.template, CONF / "mt_bench")
        print(f"{answer_all(run.model, run.backbone.tokenizer, questions, settings, file, name)} answers: {file}")
        return 0
    prompts, judge = load_prompts(data / "judge_prompts.jsonl"), judge_settings(words, CONF / "judge")
    answers = [load_answers(file) for file in files]
    if arguments.command == "grade":
        judged = grade(questions, answers[0], prompts, judge, arguments.to or files[0].with_suffix(".grades.jsonl"))
        return _tell(judged, category_means(judged.rows)["all"])
    file = arguments.to or files[0].with_suffix(f".against-{files[1].stem}.jsonl")
    judged = compare(questions, (answers[0], answers[1]), prompts, judge, file)
    return _tell(judged, win_rates(judged.rows))


def _tell(judged: Judged, summary: object) -> int:
    print(json.dumps({"unanswered": judged.unanswered, "summary": summary}))
    return 1 if judged.unanswered else 0


if __name__ == "__main__":
    sys.exit(main())
