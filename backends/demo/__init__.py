"""The demo model family: a small chat model of our own, with its corpus, skills, tokenizer, training and weights."""

from pathlib import Path

WEIGHTS_DIR = Path(__file__).parent / "weights"
TARGET_DIR = WEIGHTS_DIR / "target"
DRAFT_DIR = WEIGHTS_DIR / "draft"
