"""The GPUs that a plan is held against. Stdlib only."""

from workbench.models.gpus import Gpu, catalogue, find_gpus, parse_gpu

__all__ = ["Gpu", "catalogue", "find_gpus", "parse_gpu"]
