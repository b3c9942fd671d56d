"""ESMFold that can be fine-tuned: Lin et al. 2023, Science 379:1123, as transformers' EsmForProteinFolding ports it."""

from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers import EsmConfig, EsmForProteinFolding
from transformers.models.esm.modeling_esmfold import (
    EsmFoldTriangularSelfAttentionBlock,
    EsmForProteinFoldingOutput,
    categorical_lddt,
)

from lorta.models.locate import ModelFiles

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class RecomputedBlock(EsmFoldTriangularSelfAttentionBlock):
    """A block of the trunk whose activations are computed again in the backward pass."""

    def forward(self, *arguments: Any, **named: Any) -> Any:
        """Return what the parent's forward does."""
        if not torch.is_grad_enabled():
            return super().forward(*arguments, **named)
        return checkpoint(super().forward, *arguments, use_reentrant=False, **named)


class TrainableFold(EsmForProteinFolding):
    """EsmForProteinFolding with the graph kept between its language model and its trunk, which transformers cuts.

    `input_ids` (batch, residues) are AlphaFold's residue numbers, 0 to 20, not ESM-2's tokens: the class maps them.
    """

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        num_recycles: int | None = None,
        **_: Any,
    ) -> EsmForProteinFoldingOutput:
        """Return frames, angles, positions, distogram_logits, lddt_head and plddt, as the parent's forward does.

        The parent's aligned errors, TM-score and masked-residue logits are left out: nothing here trains or reads
        them, and its TM-score is one number for a whole batch, padding included.
        """
        settings: Any = self.config.esmfold_config
        batch, length = input_ids.shape
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        if position_ids is None:
            position_ids = torch.arange(length, device=input_ids.device).expand_as(input_ids)
        layers = self.compute_language_model_representations(self.af2_idx_to_esm_idx(input_ids, mask))
        layers = layers.to(self.esm_s_combine.dtype)  # (batch, residues, layers, hidden); the parent detaches it here
        single = self.esm_s_mlp((self.esm_s_combine.softmax(0).unsqueeze(0) @ layers).squeeze(2))
        if settings.embed_aa:
            single = single + self.embedding(input_ids)
        pair = single.new_zeros(batch, length, length, settings.trunk.pairwise_state_dim)
        outputs: dict = self.trunk(single, pair, input_ids, position_ids, mask, no_recycles=num_recycles)
        distogram = self.distogram_head(outputs["s_z"])
        confidence = self.lddt_head(outputs["states"]).unflatten(-1, (-1, self.lddt_bins))
        return EsmForProteinFoldingOutput(
            frames=outputs["frames"],
            unnormalized_angles=outputs["unnormalized_angles"],
            angles=outputs["angles"],
            positions=outputs["positions"],
            states=outputs["states"],
            distogram_logits=(distogram + distogram.transpose(1, 2)) / 2,
            lddt_head=confidence,
            plddt=categorical_lddt(confidence[-1], bins=self.lddt_bins),
        )

    def activation_checkpointing_enable(self, *arguments: Any, **named: Any) -> None:
        """Recompute the layers of the language model, as any model of transformers does, and the trunk's blocks.

        Pairs cost most: what they keep grows with the third power of the length.
        """
        super().activation_checkpointing_enable(*arguments, **named)
        for block in self.trunk.blocks:
            block.__class__ = RecomputedBlock  # transformers has no checkpoints there


def load_folding_model(files: ModelFiles, dtype: str) -> TrainableFold:
    """Return an ESMFold; `dtype` (fp32, bf16) is that of its language model, the trunk computes in float32.

    Nothing in it requires a gradient.
    """
    revision = files.revision or "main"
    config: Any = EsmConfig.from_pretrained(files.location, revision=revision)
    config.esmfold_config.fp16_esm = False  # its half precision overflows in training; bfloat16 below does not
    model = TrainableFold.from_pretrained(
        files.location, config=config, revision=revision, dtype=torch.float32, use_safetensors=True
    )
    language_model: Any = model.esm
    language_model.to(DTYPES[dtype])
    return model.requires_grad_(False)
