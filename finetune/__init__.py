"""What needs torch: runs in an environment of its own, as children, never inside the gateway."""

import os

# torch's OpenMP threads spin at every barrier, which is 5 times slower where other processes want the cores too. Read when libgomp loads.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
