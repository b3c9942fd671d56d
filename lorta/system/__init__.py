"""The process and machine of a run: signals, allocator, Slurm job, versions, log output. Imports config and below."""
