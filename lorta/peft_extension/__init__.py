"""What PEFT lacks for tuners from outside: registration, shared factors, saving, merging. Imports geometry."""

from lorta.peft_extension.compatibility import check_peft

check_peft()  # before a module of this package imports what another release lacks
