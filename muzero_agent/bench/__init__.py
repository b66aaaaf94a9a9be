"""MuZero beside the algorithms of Stable-Baselines3: what `muzero-agent bench` does.

agents     the algorithms, their settings and their environments
plan       which runs are asked for
worker     one run, in a process of its own
runner     all runs, several at a time; what is finished is kept
results    tables and statistics
plots      learning curves
"""
