"""Write a LoRTA adapter as an ordinary LoRA, and load that with PEFT: python examples/export_lora.py [FOLDER].

From saved adapters the command line does the same: lorta export ADAPTER --base MODEL --to FOLDER
"""

import sys
import tempfile
from importlib.resources import files

import torch
from peft import PeftModel, get_peft_model
from transformers import AutoModelForSequenceClassification

from lorta.tuner import LortaConfig
from lorta.tuner.export import export_model

base = str(files("lorta.embedded") / "weights" / "tiny")
folder = sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()


def backbone():
    """Return the pretrained model with a new classification head, the same at each call."""
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_pretrained(base, num_labels=2, dtype=torch.float32)


lorta = get_peft_model(backbone(), LortaConfig(r=4, task_type="SEQ_CLS"))
with torch.no_grad():  # as after training: every factor is different from zero
    for name, weight in lorta.named_parameters():
        if "lorta_" in name:
            weight.normal_(std=0.3)

lora_config = export_model(lorta, folder)
lora = PeftModel.from_pretrained(backbone(), folder)  # does not need this package any more
tokens = torch.tensor([[0, 5, 6, 7, 2]])
difference = (lora.eval()(tokens).logits - lorta.eval()(tokens).logits).abs().max()
print(f"{lora_config.peft_type.value} of rank {lora_config.r} in {folder}")
print(f"largest difference of the logits: {difference:.1e}")
