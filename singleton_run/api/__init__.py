"""What a lock backend may import, together with `singleton_run.errors`, and nothing else."""
