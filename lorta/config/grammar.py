"""What is wrong with a word of the command line that Hydra's grammar refuses, with the way to write it instead."""

import re
from collections.abc import Mapping

PLAIN = re.compile(r"[A-Za-z0-9_./:%+@?|*-]+")  # values that need no quotes
KEY = re.compile(r"[A-Za-z0-9_./@-]+")
QUOTES = "'\""


def as_word(key: str, value: object) -> str:
    """Return KEY=VALUE as a command line takes it: a text with other characters than plain ones stands in quotes."""
    return f"{key}={_as_value(value)}"


def _as_value(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_as_value(inner)}" for key, inner in value.items()) + "}"
    return _quoted(value) if isinstance(value, str) and not PLAIN.fullmatch(value) else str(value)


def explain(word: str, refusal: str) -> str:
    """Return one sentence about a word that cannot be read. `refusal` is the parser's own, in terms of its grammar."""
    key, equals, value = word.partition("=")
    key = key.lstrip("+")
    if {"\n", "\r"} & set(word):
        return f"{word!r}: leave the line break out"
    if not word.strip():
        return "an empty word: leave it out (a variable of the shell may be empty)"
    if not equals:
        return f"{word}: KEY=VALUE is needed; a list has no spaces (adapter=lora,lorta), or stands in quotes"
    if not KEY.fullmatch(key):
        return f"{word}: the key {key!r} cannot be: write KEY=VALUE without spaces around the ="
    if value.endswith(",") or value.startswith(",") or ",," in value:
        return f"{word}: a value is missing beside a comma: leave the comma out"
    if value and value[0] in QUOTES and (len(value) == 1 or value[-1] != value[0]):
        return f"{word}: the quote {value[0]} is not closed"
    for opening, closing in ("[]", "{}", "()"):
        if value.startswith(opening) and value.count(opening) != value.count(closing):
            return f"{word}: {opening} and {closing} must come in pairs"
    if PLAIN.fullmatch(value):
        return f"{word}: {refusal}"
    shown = f'"{key}={_quoted(value)}"' if "'" not in value else f"'{key}=\"{value}\"'"
    return f"{word}: a value with {_strange(value)} needs quotes inside quotes: {shown}"


def _quoted(value: str) -> str:
    quote = '"' if "'" in value else "'"
    return f"{quote}{value.replace(quote, chr(92) + quote)}{quote}"


def _strange(value: str) -> str:
    """Return the first character that must not stand outside of quotes."""
    character = next(one for one in value if not PLAIN.fullmatch(one))
    return {" ": "a space", "\t": "a tab"}.get(character, character)
