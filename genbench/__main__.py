"""`python -m genbench` is the command `genbench`."""

import sys

from genbench.cli import main

sys.exit(main())
