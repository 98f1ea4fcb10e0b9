"""A session under thousands of random operations and kills: python -m tests.soak --seconds 600"""
