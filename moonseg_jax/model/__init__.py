"""Pure-functional Flax modules: vision encoder, text decoder, region heads, refinement head."""
