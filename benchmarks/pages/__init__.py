"""Results as pages: one HTML file that needs no other, with its plots drawn in."""
