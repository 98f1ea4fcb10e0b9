"""Everything Textual. Asks the session client, never a model library."""
