"""The command lines: run.py and `lorta COMMAND`. Imports everything; nothing imports it."""
