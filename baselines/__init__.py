"""Methods that PEFT does not ship or leaves incomplete, one file or folder each; `conf/adapter` names them."""
