"""Processes and Slurm jobs that do runs, and what a person sees meanwhile. Imports runner, status and below."""
