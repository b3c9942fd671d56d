"""Make the report of finished runs, or the tables of a paper beside our runs. The same as `lorta table`.

python scripts/make_tables.py [--runs runs | --records results/records/NAME.jsonl] [--name NAME]
python scripts/make_tables.py paper=lorta [table=glue_base] [--runs runs | --records FILE ...]
"""

import argparse
import sys

from lorta.cli.table import declare, run


def main() -> int:
    """Write the tables and print their Markdown; what cannot be read or compared gives status 2 and a sentence."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    declare(parser)
    try:
        run(parser.parse_args())
    except (ValueError, OSError) as error:
        print(f"make_tables: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
