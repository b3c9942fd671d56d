"""Tests of PEFT's that ask for what a tuner of ours does not have, each with the reason. This list may only shrink.

A test that is listed must fail: when it passes, its line has to go.
"""

SHARED = (
    "The test wants fewer trainable tensors when fewer layers are adapted. All layers share this method's tensors, "
    "which get smaller and are as many."
)
ONE_AT_A_TIME = "Two adapters replace the weight one after the other, so that they are refused together."
NO_MATRIX = "The bottleneck has an activation, so that no weight matrix does the same: merging is refused."
SHARED_TUNERS = (
    *("lorta", "lorta_preconditioned", "lotr", "cara", "metatt_4d", "metatt_5d", "tenslora", "fact_tt", "fact_tk"),
)
MERGING = ("test_merge_layers", "test_merge_layers_fp16", "test_merge_layers_multi", "test_merge_layers_nan")
INDEXING = (
    "test_training_decoders_layer_indexing",
    "test_training_encoder_decoders_layer_indexing",
    "test_training_layer_indexing",
)

NOT_APPLICABLE: dict[str, dict[str, str]] = {test: dict.fromkeys(SHARED_TUNERS, SHARED) for test in INDEXING}
NOT_APPLICABLE |= {test: {"loretta_adp": NO_MATRIX} for test in MERGING}
NOT_APPLICABLE["test_merge_layers_multi"] |= dict.fromkeys(("ether", "ether_plus", "soda", "soda_qr"), ONE_AT_A_TIME)


def reason(test: str, tuner: str) -> str | None:
    """Return why a test does not apply to a tuner, or None."""
    return NOT_APPLICABLE.get(test, {}).get(tuner)
