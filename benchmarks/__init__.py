"""A black box load generator for any OpenAI-compatible endpoint, and a programmable stub engine to hold it against.

Imports nothing of forgegate on purpose: what it measures, it sees only over HTTP.
"""
