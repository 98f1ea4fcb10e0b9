"""Rules: pure functions from facts to findings, by area. None means "not enough is known to judge"."""
