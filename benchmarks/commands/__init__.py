"""The commands of `forgegate bench`, one a file."""
