"""Rebuild an embedded backbone from nothing: pre-train on its textbook and write weights, tokenizer and card.

python scripts/build_embedded.py                      # the shipped recipe, into lorta/embedded/weights/tiny
python scripts/build_embedded.py --model tiny_llama   # the decoder, into lorta/embedded/weights/tiny_llama
python scripts/build_embedded.py --model tiny_esmfold # ESMFold, on toy folds, into lorta/embedded/weights/tiny_esmfold
python scripts/build_embedded.py --steps 20           # only the first steps: prints their losses, writes nothing
python scripts/build_embedded.py --fingerprints       # rewrite the fingerprints of the embedded rows
"""

import argparse
import json
import time
from pathlib import Path

import torch

import lorta.config  # noqa: F401  lets experiments and baselines be imported

# isort: split
from experiments.folding import pretraining as folding
from lorta.embedded import causal_pretraining, instructions, pretraining, questions, tasks

WEIGHTS = Path(tasks.__file__).with_name("weights")
MODELS = {  # recipe, steps, and what writes the result
    "tiny": (pretraining.Recipe(), pretraining.pretrain, pretraining.save_pretrained),
    "tiny_llama": (
        causal_pretraining.CausalRecipe(),
        causal_pretraining.pretrain_causal,
        causal_pretraining.save_causal,
    ),
    "tiny_esmfold": (folding.Recipe(), folding.pretrain, folding.save_pretrained),
}


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="tiny", help="which backbone")
    parser.add_argument("--out", type=Path, help="folder for the weights, instead of the package's own")
    parser.add_argument("--steps", type=int, help="stop after this many steps and write nothing")
    parser.add_argument("--threads", type=int, default=1, help="threads torch may use; sums depend on it")
    parser.add_argument("--fingerprints", action="store_true", help="rewrite the rows' fingerprints, train nothing")
    return parser.parse_args()


def write_fingerprints() -> None:
    """Write the SHA-256 of every split of every task beside the task module."""
    prints = {
        name: {split: tasks.rows_fingerprint(rows(name, split)) for split in splits}
        for rows, sizes in (
            (tasks.embedded_rows, dict.fromkeys(tasks.EMBEDDED_TASKS, tasks.SIZES)),
            (instructions.text_rows, instructions.SIZES),
            (questions.question_rows, dict.fromkeys(questions.QUESTION_KINDS, questions.SIZES)),
        )
        for name, splits in sizes.items()
    }
    tasks.FINGERPRINTS.write_text(json.dumps(prints, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def main() -> None:
    """Pre-train and print one line of progress every 200 steps."""
    arguments = parse_arguments()
    if arguments.fingerprints:
        return write_fingerprints()
    torch.set_num_threads(arguments.threads)
    recipe, pretrain, save = MODELS[arguments.model]
    losses, start, model = [], time.perf_counter(), None
    for loss, model in pretrain(recipe, stop_after=arguments.steps):  # noqa: B007
        losses.append(loss)
        if arguments.steps or len(losses) % 200 == 0:
            print(f"step {len(losses):6d}  loss {loss:.6f}  {time.perf_counter() - start:7.1f} s", flush=True)
    if model is not None and not arguments.steps:
        save(model, losses, recipe, arguments.out or WEIGHTS / arguments.model)


if __name__ == "__main__":
    main()
