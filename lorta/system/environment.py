"""Environment variables by which launchers and libraries change a run's numbers, and what is done about each.

docs/environment.md has these tables with what else the libraries read; a test compares both with the libraries' code.
No torch.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

OFF = ("", "0", "no", "false", "off", "n", "f")


@dataclass(frozen=True)
class Refused:
    """A variable that makes a run another one: no run starts while it has a value other than the `harmless` ones."""

    name: str
    reader: str  # the library that reads it
    effect: str  # follows "it"
    harmless: tuple[str, ...] = OFF  # in lower case
    remedy: str = "unset it"


_PROCESSES = "makes the run wait for other processes of a distributed job"
_START = "start with `python run.py`, which runs one process for each run by itself, or unset it"
REFUSED = (
    *(
        Refused(name, "torch, accelerate", _PROCESSES, ("", "0", "1"), _START)
        for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
    ),
    *(Refused(name, "accelerate, transformers", _PROCESSES, ("-1",), _START) for name in ("LOCAL_RANK", "RANK")),
    Refused("TORCHELASTIC_RUN_ID", "transformers", _PROCESSES, ("",), _START),
    Refused(
        "ACCELERATE_MIXED_PRECISION",
        "accelerate, transformers",
        "changes the precision of training",
        ("no",),
        "unset it and set trainer.precision, which the record states",
    ),
    Refused("ACCELERATE_DYNAMO_BACKEND", "accelerate", "compiles the model", ("no",)),
    *(
        Refused(f"ACCELERATE_USE_{name}", "accelerate", "hands training to another engine", remedy=_START)
        for name in ("DEEPSPEED", "FSDP", "MEGATRON_LM", "PARALLELISM_CONFIG", "SAGEMAKER")
    ),
    Refused("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "accelerate", "scales the loss", ("", "1")),
    Refused("ACCELERATE_TORCH_DEVICE", "accelerate", "moves training to another device", ("",)),
    Refused("FORK_LAUNCHED", "accelerate", _PROCESSES, OFF, _START),
    *(
        Refused(name, "torch (oneDNN)", "multiplies float32 matrices in a lower precision", ("", "strict"))
        for name in ("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE")
    ),
    *(
        Refused(name, "torch (CUDA)", "multiplies float32 matrices in TF32, with 10 bits of mantissa")
        for name in ("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "NVIDIA_TF32_OVERRIDE")
    ),
    *(
        Refused(name, "torch_xla", "stores float32 as bfloat16")
        for name in ("XLA_USE_BF16", "XLA_DOWNCAST_BF16", "ACCELERATE_DOWNCAST_BF16")
    ),
    *(
        Refused(name, "transformers (SageMaker)", "hands training to another engine", ("",))
        for name in ("SM_HP_MP_PARAMETERS", "SMDATAPARALLEL_LOCAL_RANK")
    ),
)
HIDES_GPU = "ACCELERATE_USE_CPU"  # refused on a machine with a GPU, which the record would name
RECORDED = (  # they choose the kernels, the order of sums or the device: numbers move by rounding, memory and time too
    *(
        "ATEN_CPU_CAPABILITY",
        "MKL_CBWR",
        "MKL_ENABLE_INSTRUCTIONS",
        "MKL_DISABLE_FAST_MM",
        "MKL_DYNAMIC",
        "PYTORCH_TENSOREXPR",
    ),
    *("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ONEDNN_CPU_ISA_HINTS", "ONEDNN_CACHE_CONTEXT_UNSAFE"),
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_DYNAMIC", "KMP_AFFINITY"),
    *("TORCH_MKLDNN_MATMUL_MIN_DIM", "TORCH_MKLDNN_MATMUL_MIN_SIZE", "TORCH_LINEAR_FLATTEN_3D"),
    *("TORCH_BLAS_PREFER_CUBLASLT", "TORCH_LINALG_PREFER_CUSOLVER", "TORCH_CUDNN_USE_HEURISTIC_MODE_B"),
    *("TORCH_CUDNN_V8_API_DISABLED", "CUBLAS_WORKSPACE_CONFIG", "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"),
    *("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "PYTORCH_NO_CUDA_MEMORY_CACHING", "PYTORCH_JIT"),
    *("PYTORCH_TUNABLEOP_ENABLED", "TRANSFORMERS_SDPA_FORCE_GQA", "TRANSFORMERS_DISABLE_DEEPGEMM_LINEAR"),
    *("USE_HUB_KERNELS", "FLASH_ATTENTION_DETERMINISTIC", "BNB_CUDA_VERSION", "BNB_ROCM_VERSION"),
    *("HF_HUB_OFFLINE", "HF_ENDPOINT", "TRANSFORMERS_OFFLINE", "TOKENIZERS_PARALLELISM", HIDES_GPU),
)


def environment_problems(gpus: bool, variables: Mapping[str, str] = os.environ) -> list[str]:
    """Return a sentence for each variable that would make runs others than their settings say; `gpus`: there are some.

    A launcher sets several at once: those with the same effect and remedy share a sentence.
    """
    shared: dict[tuple[str, str], list[str]] = {}
    for refused in REFUSED:
        value = variables.get(refused.name)
        if value is not None and value.strip().lower() not in refused.harmless:
            shared.setdefault((refused.effect, refused.remedy), []).append(f"{refused.name}={value}")
    if gpus and variables.get(HIDES_GPU, "").strip().lower() not in OFF:
        effect = "trains on the processor where there is a GPU"
        shared[effect, "unset it, and set CUDA_VISIBLE_DEVICES= to hide the GPU"] = [
            f"{HIDES_GPU}={variables[HIDES_GPU]}"
        ]
    return [
        f"environment variable {', '.join(names)}: it {effect}, which no record would tell: {remedy}"
        for (effect, remedy), names in shared.items()
    ]


def recorded_variables(variables: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables, of those that are set, by which numbers may move in their last digits."""
    return {name: variables[name] for name in RECORDED if name in variables}
