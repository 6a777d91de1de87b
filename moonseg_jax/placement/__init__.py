"""Who samples and who learns, and what passes between them."""
