"""A terminal workbench for people who run and fine-tune language models."""

__version__ = "0.1.0"
