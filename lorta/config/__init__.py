"""From words and YAML files to checked settings and a run's identity; only here Hydra is seen. Imports records."""

from lorta.config.places import make_importable

make_importable()  # at the first import: also of a process that unpickles a run, wherever it was started
