"""A daemon thread is in the middle of a long copy, at which the pool is too, and its stack goes back to the system as it ends.

Up to CPython 3.13 it is ended as soon as it wants the GIL back. Then nobody may be at the job any more, which is on its stack.
"""

import threading
import time

import numpy as np

from flatrecord import Array

started = threading.Event()


class Late:
    """Is let go of when daemon threads are ended already, and takes its time."""

    def __del__(self, sleep=time.sleep):
        sleep(1)


def work():
    source = np.zeros(1 << 30, "u1")
    started.set()
    while True:
        Array(source)


def wake_up_now_and_then():
    while True:
        time.sleep(0.03)


# More than the C library keeps for the next thread. It lets go of it when another thread ends.
threading.stack_size(256 << 20)
for target in (work, *[wake_up_now_and_then] * 4):
    threading.Thread(target=target, daemon=True).start()
started.wait()
time.sleep(0.1)
late = Late()
print("done")
