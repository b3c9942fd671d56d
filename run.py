"""The one entry point: `python run.py -m adapter=lorta rank=4,8,16 task=glue`."""

if __name__ == "__main__":  # workers read this file too, and need nothing of it
    from lorta.cli.run import main

    raise SystemExit(main())
