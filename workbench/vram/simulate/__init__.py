"""Simulation: the real step of the real model classes on tensors without data, in a child process."""
