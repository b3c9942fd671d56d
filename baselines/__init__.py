"""Methods of fine-tuning that PEFT does not ship or leaves incomplete, one file or folder each, named by `conf/adapter`."""
