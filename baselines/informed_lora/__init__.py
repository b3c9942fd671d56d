"""LoRA that starts from what its layers see in training: LoRA-GA, CorDA and EVA.

`statistics` collects gradients and inputs, `starts` makes factors of them, `tuner` is the PEFT tuner and its callback.
"""
