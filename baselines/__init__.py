"""Methods of fine-tuning that PEFT does not ship, one file or folder each; `conf/adapter` names them."""
