"""Pages for people: the report of an evaluation as one file, and two that a small local server shows, to judge answers blind and to
review rows. They need no network, no other file and no build."""
