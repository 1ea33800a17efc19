"""The prepared dataset: written once by prepare, memory-mapped by everything else."""
