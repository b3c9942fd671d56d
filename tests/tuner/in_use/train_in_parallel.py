"""What test_distributed.py runs in two processes: python train_in_parallel.py FOLDER, under a launcher."""

import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from peft import PeftModel, get_peft_model
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torch.nn.parallel import DistributedDataParallel
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from lorta.tuner import LortaConfig

SHAPE = {
    "vocab_size": 48,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 40,
    "max_position_embeddings": 32,
    "initializer_range": 0.3,
}
TOKENS = torch.randint(1, 48, (4, 9), generator=torch.Generator().manual_seed(1))


def base() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SHAPE))


def adapted(use_reentrant: bool | None = None) -> PeftModel:
    """The same model in every process; with checkpointing unless `use_reentrant` is None."""
    model = get_peft_model(base(), LortaConfig(r=3, alpha=2.0, task_type="CAUSAL_LM"))
    generator = torch.Generator().manual_seed(2)
    for value in factors_of(model).values():
        value.data.copy_(0.3 * torch.randn(value.shape, generator=generator))
    if use_reentrant is not None:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    return model.train()


def factors_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name.partition("lorta_")[2]: value for name, value in model.named_parameters() if "lorta_" in name}


def train(model: torch.nn.Module, rows: torch.Tensor) -> None:
    optimizer = torch.optim.SGD([value for value in model.parameters() if value.requires_grad], lr=0.3)
    for _ in range(3):
        optimizer.zero_grad()
        model(input_ids=rows, labels=rows).loss.backward()
        optimizer.step()


def full(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    values = {name: value.detach() for name, value in factors_of(model).items()}
    return {name: (v.full_tensor() if hasattr(v, "full_tensor") else v).clone() for name, v in values.items()}


def with_ddp(rows: torch.Tensor, use_reentrant: bool | None = None, **settings: bool) -> dict[str, torch.Tensor]:
    model = adapted(use_reentrant)
    train(DistributedDataParallel(model, **settings), rows)
    return full(model)


def with_accelerator(accelerator: Accelerator, rows: torch.Tensor) -> dict[str, torch.Tensor]:
    model = adapted()
    train(accelerator.prepare(model), rows)
    return full(model)


def with_fsdp1(rows: torch.Tensor) -> dict[str, torch.Tensor]:
    wrap = ModuleWrapPolicy({LlamaDecoderLayer})
    model = FullyShardedDataParallel(
        adapted(), use_orig_params=True, auto_wrap_policy=wrap, device_id=torch.device("cpu")
    )
    train(model, rows)
    with FullyShardedDataParallel.summon_full_params(model):
        return full(model)


def with_fsdp2(rows: torch.Tensor, use_reentrant: bool | None = None, folder: Path | None = None):
    model = adapted(use_reentrant)
    mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    for layer in model.base_model.model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    train(model, rows)
    if folder is not None:
        state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
        if torch.distributed.get_rank() == 0:
            model.save_pretrained(folder, state_dict=state)
    return full(model)


def refused(rows: torch.Tensor) -> str:
    try:
        with_ddp(rows, use_reentrant=True)
    except ValueError as error:
        return str(error)
    return ""


def main() -> None:
    folder = Path(sys.argv[1])
    accelerator = Accelerator(cpu=True)
    rank, world = accelerator.process_index, accelerator.num_processes
    rows = TOKENS.chunk(world)[rank]
    results = {
        "world": world,
        "ddp": with_accelerator(accelerator, rows),
        "ddp, checkpointing": with_ddp(rows, use_reentrant=False),
        "ddp, unused parameters looked for": with_ddp(rows, find_unused_parameters=True),  # as Trainer does for PEFT
        "ddp, reentrant checkpointing, static graph": with_ddp(rows, use_reentrant=True, static_graph=True),
        "fsdp1": with_fsdp1(rows),
        "fsdp2": with_fsdp2(rows, folder=folder / "adapter"),
        "fsdp2, checkpointing": with_fsdp2(rows, use_reentrant=False),
        "fsdp2, reentrant checkpointing": with_fsdp2(rows, use_reentrant=True),
        "refused": refused(rows),
    }
    torch.save(results, folder / f"rank{rank}.pt")
    accelerator.wait_for_everyone()
    accelerator.end_training()


if __name__ == "__main__":
    main()
