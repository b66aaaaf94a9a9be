"""The wings of the package: `envs` lies below the algorithm, `engines` above it.

The folder stands at the top of the repository and installs as `muzero_agent.adapters`.
"""
