"""LVIS annotations of COCO photos: the phrase is a category, the target all of it or one instance."""
