"""Score a finished run's adapter with lm-evaluation-harness (lm_eval 0.4.13, a development dependency).

python scripts/second_opinion.py runs/SIGNATURE                          # the run's own questions, by both
python scripts/second_opinion.py runs/SIGNATURE --tasks gsm8k,boolq      # lm_eval's tasks; they read the model hub
python scripts/second_opinion.py runs/SIGNATURE --tasks mine --include FOLDER     # task files of your own

Words such as model.path=FOLDER and data.root=FOLDER say where a run's files are on this machine.
"""

import argparse
import json
import sys
from pathlib import Path

import lorta.config  # noqa: F401  lets experiments and baselines be imported

# isort: split
from experiments.questions.second_opinion import own_questions, run_tasks
from lorta.cli.own_folders import declare_code
from lorta.config.places import CONF
from lorta.runner.reload import reload_run


def main() -> int:
    """Print the metrics of both as JSON; 2 for what cannot be done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--tasks", help="names of lm_eval tasks, with commas")
    parser.add_argument("--include", type=Path, help="a folder of task files")
    declare_code(parser)
    arguments = parser.parse_intermixed_args()
    try:
        run = reload_run(arguments.run, CONF, arguments.words, code=arguments.code)
        if arguments.tasks is None:
            opinion = own_questions(run, arguments.run / "second_opinion")
        else:
            opinion = run_tasks(run, arguments.tasks.split(","), arguments.include)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(opinion, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
