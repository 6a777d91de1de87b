"""The vector-path language: vocabulary, grammar, raster, tracer, SVG text."""
