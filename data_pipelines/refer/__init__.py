"""Referring expressions in the layout of the REFER API: RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO."""
