"""`python -m gateway` is `forgegate`."""

import sys

from gateway.cli import main

sys.exit(main())
