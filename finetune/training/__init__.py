"""One attempt at a training run: what needs torch, transformers, TRL, PEFT and bitsandbytes. Started as a process of its own."""
