"""What runs inside vLLM's own processes: the standard library only, and nothing of ours, so that any interpreter can."""
