"""Containers that go wrong while their entries are taken out of them, at ``layer1``."""

from collections import OrderedDict, UserDict


class Stubborn(OrderedDict):
    """Refuses to let go of one key."""

    def __delitem__(self, key):
        if key == "layer1":
            raise RuntimeError("never")
        super().__delitem__(key)


class LetsGoAndRaises(OrderedDict):
    def __delitem__(self, key):
        super().__delitem__(key)
        if key == "layer1":
            raise RuntimeError("too late")


class StubbornUser(UserDict):
    def __delitem__(self, key):
        if key == "layer1":
            raise RuntimeError("never")
        super().__delitem__(key)


class Interrupted(OrderedDict):
    def __delitem__(self, key):
        if key == "layer1":
            raise KeyboardInterrupt
        super().__delitem__(key)


class Unreadable(UserDict):
    """Lets ``layer1`` be read once, for the check, and then no more."""

    reads = 0

    def __getitem__(self, key):
        if key == "layer1":
            self.reads += 1
            if self.reads > 1:
                raise OSError("gone")
        return self.data[key]

    def __contains__(self, key):
        return self[key] is not None


class Vanishing(OrderedDict):
    """Loses another entry with the one that is deleted."""

    def __delitem__(self, key):
        super().__delitem__(key)
        if key == "layer2":
            self.pop("layer1")
