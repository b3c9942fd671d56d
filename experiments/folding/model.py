"""ESMFold that can be fine-tuned: Lin et al. 2023, Science 379:1123, as transformers' EsmForProteinFolding ports it."""

from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers import EsmConfig, EsmForProteinFolding
from transformers.models.esm.modeling_esmfold import EsmForProteinFoldingOutput, categorical_lddt

from lorta.harness.backbone import ModelFiles

BEHIND_THE_LANGUAGE_MODEL = ("esm_s_mlp", "embedding", "trunk", "distogram_head", "lddt_head")  # what a target reaches
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


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
        batch, length = input_ids.shape
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        if position_ids is None:
            position_ids = torch.arange(length, device=input_ids.device).expand_as(input_ids)
        layers = self.compute_language_model_representations(self.af2_idx_to_esm_idx(input_ids, mask))
        layers = layers.to(self.esm_s_combine.dtype)  # (batch, residues, layers, hidden); the parent detaches it here
        single = self.esm_s_mlp((self.esm_s_combine.softmax(0).unsqueeze(0) @ layers).squeeze(2))
        if self.config.esmfold_config.embed_aa:
            single = single + self.embedding(input_ids)
        pair = single.new_zeros(batch, length, length, self.config.esmfold_config.trunk.pairwise_state_dim)
        found: dict = self.trunk(single, pair, input_ids, position_ids, mask, no_recycles=num_recycles)
        distogram = self.distogram_head(found["s_z"])
        confidence = self.lddt_head(found["states"]).unflatten(-1, (-1, self.lddt_bins))
        return EsmForProteinFoldingOutput(
            frames=found["frames"],
            unnormalized_angles=found["unnormalized_angles"],
            angles=found["angles"],
            positions=found["positions"],
            states=found["states"],
            distogram_logits=(distogram + distogram.transpose(1, 2)) / 2,
            lddt_head=confidence,
            plddt=categorical_lddt(confidence[-1], bins=self.lddt_bins),
        )


def load_folding_model(files: ModelFiles, dtype: str) -> TrainableFold:
    """Return an ESMFold; `dtype` (fp32, bf16) is that of its language model, the trunk computes in float32.

    Nothing in it requires a gradient. Raises ValueError when the checkpoint has no folding trunk.
    """
    if not files.config.get("is_folding_model"):
        raise ValueError(
            f"task=folding needs an ESMFold checkpoint, and {files.location} (model_type "
            f"{files.config.get('model_type')}) has no folding trunk: use model=tiny_esmfold or model=esmfold_v1"
        )
    revision = files.revision or "main"
    config = EsmConfig.from_pretrained(files.location, revision=revision)
    config.esmfold_config.fp16_esm = False  # its half precision overflows in training; bfloat16 below does not
    model = TrainableFold.from_pretrained(files.location, config=config, revision=revision, dtype=torch.float32)
    model.esm.to(DTYPES[dtype])
    return model.requires_grad_(False)


def checkpoint_blocks(model: TrainableFold) -> None:
    """Recompute every block of language model and trunk in the backward pass instead of keeping its activations.

    Pairs cost most: a block of ESMFold's trunk keeps about 2 GB for 256 residues.
    """
    for block in [*model.esm.encoder.layer, *model.trunk.blocks]:
        block.forward = _recomputed(block.forward)


def _recomputed(forward: Any) -> Any:
    def recompute(*arguments: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*arguments, **named)
        return checkpoint(forward, *arguments, use_reentrant=False, **named)

    return recompute
