"""Write the answers of finished runs to MT-Bench's questions; scripts/judge.py has them judged.

DATA=data/instruct/mt_bench                       # with FastChat's question.jsonl
python scripts/mt_bench.py runs/SIGNATURE --data $DATA --template alpaca        # into runs/SIGNATURE/mt_bench.jsonl
python scripts/mt_bench.py runs/SIGNATURE --data $DATA --base-only              # the same model without its adapter
python scripts/mt_bench.py runs/SIGNATURE --questions validation.jsonl          # other questions, of one turn or two

Questions may be preference rows with a column `prompt`, such as the held-out pairs of task=dpo. Words such as
model.path=FOLDER say where a run's files are on this machine; mt_bench.KEY=VALUE changes a value of the template's
file, such as mt_bench.generation.batch_size=32. A killed command continues where it was.
"""

import argparse
import sys
from pathlib import Path

import lorta.config  # noqa: F401  lets experiments and baselines be imported

# isort: split
from experiments.judge.answers import answer_all, answer_settings, beyond_positions, template_of, what_is_missing
from experiments.judge.prompts import load_questions
from lorta.cli.own_folders import declare_code
from lorta.config.places import CONF
from lorta.runner.reload import reload_run


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="+", metavar="RUN|KEY=VALUE", help="run folders, and where their files are")
    parser.add_argument("--data", type=Path, default=Path("."), help="folder with question.jsonl")
    parser.add_argument("--questions", type=Path, help="a file of questions, instead")
    parser.add_argument("--template", help="a name of conf/mt_bench/; default: as the run's task asked")
    parser.add_argument("--base-only", action="store_true", help="leave the adapter out")
    declare_code(parser)
    return parser.parse_intermixed_args()


def main() -> int:
    """Answer for every run; 2 for what cannot be done."""
    arguments = parse_arguments()
    ours = [word for word in arguments.words if word.startswith("mt_bench.")]
    words = [word for word in arguments.words if "=" in word and word not in ours]
    suffix = "-base" if arguments.base_only else ""
    try:
        questions = load_questions(arguments.questions or arguments.data / "question.jsonl")
        for folder in (Path(word) for word in arguments.words if "=" not in word):
            run = reload_run(folder, CONF, words, arguments.base_only, arguments.code)
            template = arguments.template or template_of(run.settings.task)
            settings = answer_settings(template, CONF / "mt_bench", ours)
            if sentence := beyond_positions(settings, run.model.config):
                print(f"{folder}: {sentence}", file=sys.stderr)
            file = folder / f"{'mt_bench' if arguments.questions is None else arguments.questions.stem}{suffix}.jsonl"
            count = answer_all(run.model, run.backbone.tokenizer, questions, settings, file, folder.name + suffix)
            print(f"{file}: {count} answers written, {len(questions) - count} were there")
            for sentence in what_is_missing(file, settings):
                print(f"{file}: {sentence}")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
