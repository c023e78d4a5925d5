"""A training run seen from outside of what trains: its folder, its attempts, what is watched, shown and kept."""
