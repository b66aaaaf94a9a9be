"""Encodings of environments and games, one module for each third-party library.

A module here knows `muzero_agent.types`, its own library and Stable-Baselines3's vectorised
environments, and nothing of the algorithm.
"""
