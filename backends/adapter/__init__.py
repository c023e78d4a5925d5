"""LoRA adapters as artefacts: read, checked, brought into one form, stored by content. No torch."""
