"""`python -m muzero_agent` is `muzero-agent`."""

from muzero_agent.cli import main

if __name__ == "__main__":
    main()
