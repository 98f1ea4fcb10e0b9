"""What a model is made of: the skeleton, and pure functions over it."""
