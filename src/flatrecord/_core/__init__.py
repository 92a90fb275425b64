"""The compiled core: memory and its owner, arrays, records. Imports nothing of the package above it."""
