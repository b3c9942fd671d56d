"""Small GGUF files of random weights, with a byte-level tokenizer and ChatML's template, written without a hub."""

from pathlib import Path

import numpy as np
import torch
from gguf import GGUFWriter, TokenType
from tokenizers.pre_tokenizers import ByteLevel
from transformers import LlamaConfig, LlamaForCausalLM

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TOKENS = [*SPECIALS, *sorted(ByteLevel.alphabet()), "th"]
CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + "
    "'\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
HEADS, KEY_HEADS, LAYERS, WIDTH, INNER = 4, 2, 2, 32, 48
PARTS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def llama() -> LlamaForCausalLM:
    """Return the model that `write_gguf` writes: tied embeddings, as SmolLM2 has them."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(TOKENS),
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS,
        max_position_embeddings=512,
        rms_norm_eps=1e-6,
        initializer_range=0.2,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


def write_gguf(file: Path, architecture: str = "llama", without: str | None = None) -> LlamaForCausalLM:
    """Write the model as a float32 GGUF file, but for the tensor called `without`, and return it."""
    model, writer = llama(), GGUFWriter(file, architecture)
    writer.add_license("apache-2.0")
    writer.add_vocab_size(len(TOKENS))
    writer.add_context_length(512)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    _add_tokenizer(writer)
    for name, values in _tensors(model).items():
        if name != without:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def _add_tokenizer(writer: GGUFWriter) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS)
    writer.add_token_types([TokenType.CONTROL] * len(SPECIALS) + [TokenType.NORMAL] * (len(TOKENS) - len(SPECIALS)))
    writer.add_token_merges(["t h"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(CHATML)


def _tensors(model: LlamaForCausalLM) -> dict[str, np.ndarray]:
    names = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}
    for layer in range(LAYERS):
        names |= {f"blk.{layer}.{short}": f"model.layers.{layer}.{path}" for short, path in PARTS.items()}
    return {f"{short}.weight": _stored(model.state_dict()[f"{path}.weight"], path) for short, path in names.items()}


def _stored(weight: torch.Tensor, path: str) -> np.ndarray:
    """Return a weight as the format has it: the halves of a rotated head are interleaved there."""
    values = weight.numpy()
    heads = {"q_proj": HEADS, "k_proj": KEY_HEADS}.get(path.rpartition(".")[2])
    if heads is not None:
        values = values.reshape(heads, 2, WIDTH // HEADS // 2, WIDTH).swapaxes(1, 2).reshape(-1, WIDTH)
    return np.ascontiguousarray(values, dtype=np.float32)
