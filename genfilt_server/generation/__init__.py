"""From products to descriptions: prompts, the generator, the pipeline."""
