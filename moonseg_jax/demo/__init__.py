"""A page on this machine: a photo and a phrase in, the path as it is drawn, the masks, and their files out."""
