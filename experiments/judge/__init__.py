"""MT-Bench answers, and verdicts on answers by a judge model behind an OpenAI-compatible endpoint."""
