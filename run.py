"""The one entry point: `python run.py -m adapter=lorta rank=4,8,16 task=glue`."""

from lorta.cli.run import main

if __name__ == "__main__":
    raise SystemExit(main())
