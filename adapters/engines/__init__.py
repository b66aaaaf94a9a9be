"""Protocols by which other programs play against a trained model, such as UCI and GTP.

A module here turns lines of text into calls of a planner and back; thin dialects share one core.
"""
