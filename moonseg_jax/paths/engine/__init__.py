"""The official engine's dialect: completions as SVG path text, its curves, and the soft masks it renders."""
