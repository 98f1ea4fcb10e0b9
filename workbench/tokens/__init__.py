"""Exact token counts of a text under each model's own tokenizer."""
