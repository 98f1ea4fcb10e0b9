"""Hostile text sent through every way in; what is written to the terminal is read as a terminal would."""
