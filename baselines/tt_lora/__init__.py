"""TT-LoRA, an update that is one tensor train."""
