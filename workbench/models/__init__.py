"""Where models come from: one resolver, fetching, conversion and loading."""
