"""A character-level transformer, trained over SuperNodes with stock or flat records."""
