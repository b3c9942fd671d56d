"""Results of other projects as records: PEFT's method_comparison and lm-evaluation-harness. No torch."""
