"""Anyone's masks, from a file, against the ground truth of a data set."""
