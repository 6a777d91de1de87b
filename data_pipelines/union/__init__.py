"""Training sets made of several data sets, free of every photo that any of them is judged on."""
