"""Simulated users of a Chainlit app, and what they meet: the command `load`.

It speaks Chainlit's own protocol from the outside, so whatever stands in front of the app is part of what is
measured. Nothing here knows this proxy; `run.py` is where to begin reading.
"""
