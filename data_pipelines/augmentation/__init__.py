"""Changes of training scenes that keep every phrase true."""
