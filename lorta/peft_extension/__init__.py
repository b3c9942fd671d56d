"""What PEFT lacks for tuners from outside: registration, shared factors, saving, merging. Imports geometry."""
