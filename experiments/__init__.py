"""Python configs, one per file, each with `get_config()`."""
