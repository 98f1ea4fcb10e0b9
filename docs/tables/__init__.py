"""Makes three of the Doctor's tables anew from the releases of the packages themselves; see ``__main__``."""
