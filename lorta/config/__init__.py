"""From words and YAML files to checked settings and a run's identity; only here Hydra is seen. Imports records."""
