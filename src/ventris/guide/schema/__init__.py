"""JSON Schema for guides: reading one from what people have, and saying it in what the back end enforces."""
