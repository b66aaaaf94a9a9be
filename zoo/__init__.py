"""Pretrained models: their cards, and a loader that never runs anybody's code.

The folder stands at the top of the repository and installs as `muzero_agent.zoo`.
"""
