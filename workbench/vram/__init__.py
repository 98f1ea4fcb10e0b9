"""Memory budgets: weights, KV cache and the rest, in bytes."""
