"""Faults injected for real into a real worker, each with what the workbench promises. Table: python -m tests.faults"""
