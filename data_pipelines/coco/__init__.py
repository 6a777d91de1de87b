"""Photos with COCO instance annotations: a category's name is the phrase where the photo holds it once."""
