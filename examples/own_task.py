"""Write the data of a task of your own: python examples/own_task.py FOLDER. Does a sentence speak of a vehicle?"""

import json
import sys
from pathlib import Path

from lorta.embedded import embedded_rows

VEHICLES = {"cars", "trucks", "vehicles"}

folder = Path(sys.argv[1]) / "glue" / "vehicles"
folder.mkdir(parents=True, exist_ok=True)
for split in ("train", "validation"):
    with (folder / f"{split}.jsonl").open("w") as file:
        for row in embedded_rows("rte", split):
            sentence = row["sentence1"]
            label = int(bool(VEHICLES & set(sentence.split())))
            print(json.dumps({"sentence": sentence, "label": label}), file=file)
