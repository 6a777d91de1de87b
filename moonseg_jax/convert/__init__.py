"""Official PyTorch weights in and out: names, layouts, reading, importing, exporting."""
