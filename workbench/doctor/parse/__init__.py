"""Readers of pasted reports: text in, `Facts` out."""
