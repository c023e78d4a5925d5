"""Datasets: read in whatever form they come, checked, cleaned, split, mixed, shown. No torch; tokenizers only when a model is named."""
