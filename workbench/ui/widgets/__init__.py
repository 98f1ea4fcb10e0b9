"""The house widgets: few, cheap, and safe for text that others wrote."""
