"""`python -m lorta`: the command `lorta` where no console script is installed."""

from lorta.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
