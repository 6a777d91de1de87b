"""Masks → smooth paths of corners and Béziers, as refined answers carry them."""
