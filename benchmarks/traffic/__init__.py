"""What a load consists of: when requests are due, how long they are, what they share, whom they ask. Pure and seeded.

The same seed gives the same bytes in every process. Each property has a random stream of its own, named for it, so that
another rate leaves the prompts as they were, and another length the arrivals.
"""
