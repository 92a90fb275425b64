"""Arrays made of parts that came from a file or a stream."""
