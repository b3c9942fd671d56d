"""The embedded default: a small synthetic language, its tasks, and an encoder and a decoder pre-trained on it."""

from lorta.embedded.tasks import EMBEDDED_REVISION, EMBEDDED_TASKS, embedded_fingerprint, embedded_rows

__all__ = ["EMBEDDED_REVISION", "EMBEDDED_TASKS", "embedded_fingerprint", "embedded_rows"]
