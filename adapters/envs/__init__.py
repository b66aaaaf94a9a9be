"""Encodings of environments and games, one module for each third-party library.

A module here knows `muzero_agent.types` and its own library, and nothing of the algorithm.
"""
