"""Does this Python environment really drive this GPU? Facts in, findings out."""
