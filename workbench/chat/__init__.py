"""Conversations with a loaded model: templates, sampling, generation, history."""
