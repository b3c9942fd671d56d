"""What the README of a saved adapter says: PEFT's form of unanswered questions is not in it."""

import yaml
from peft import LoraConfig, get_peft_model
from transformers import RobertaConfig, RobertaForSequenceClassification

from lorta.api.peft_adapter import PeftAdapter


def test_the_card_says_what_is_known_and_asks_nothing(tmp_path):
    shape = RobertaConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9)
    config = {"_target_": "peft.LoraConfig", "r": 1}
    adapter = PeftAdapter("mine", config, ["q"], {}, learning_rate=1e-3, head_learning_rate=1e-3, load_with="call x.")
    model = get_peft_model(RobertaForSequenceClassification(shape), LoraConfig(r=1, target_modules=["query"]))
    adapter.save(model, tmp_path / "adapter")
    text = (tmp_path / "adapter" / "README.md").read_text()
    assert "More Information Needed" not in text and "Model Card for" not in text
    _, front, body = text.split("---\n", 2)
    assert yaml.safe_load(front)["library_name"] == "peft"
    assert body.lstrip().startswith("# mine\n") and "`record.json`" in body
    assert "## Loading\n- call x." in body and "PEFT 0." in body
