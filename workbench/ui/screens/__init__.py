"""Screens over the main one; each module is imported when its screen is first opened."""
