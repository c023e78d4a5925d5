"""The HTTP APIs of the engine: one file for each, with its request, what it means, and how its answer looks on the wire."""
