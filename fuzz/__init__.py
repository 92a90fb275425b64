"""Coverage-guided fuzzing of what reads bytes from anybody: ``python -m fuzz``, or ``make fuzz``.

A module a target: `check` gets some bytes, and whatever it raises is a finding. The build with ``FLATRECORD_FUZZ=1`` has gcc's
AddressSanitizer and UndefinedBehaviorSanitizer, and tells libFuzzer which of its blocks an input reaches.
"""

TARGETS = ("npy", "safetensors", "flower")
