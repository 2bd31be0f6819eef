"""Text to vectors: tokenizer, backends, scheduler, workers."""
