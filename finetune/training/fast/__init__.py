"""What makes an update faster or smaller, and leaves what it computes as it is."""
