"""LoRTA, low-rank tensor adaptation, as a tuner for PEFT. Importing this package registers it.

    model = peft.get_peft_model(model, LortaConfig(r=8, task_type="SEQ_CLS"))

Source: Hounie, Kanatsoulis, Tandon, Ribeiro 2024, arXiv:2410.04060.
"""

from lorta.peft_extension.registry import register_tuner
from lorta.tuner.config import PEFT_TYPE, LortaConfig
from lorta.tuner.layer import PREFIX, LortaLinear
from lorta.tuner.model import LortaModel

__all__ = ["LortaConfig", "LortaLinear", "LortaModel"]

register_tuner(PEFT_TYPE.lower(), LortaConfig, LortaModel, PREFIX)
