"""RefCOCO-M: the validation photos of RefCOCO with boundary-accurate masks, published as parquet."""
