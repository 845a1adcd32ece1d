"""`python -m fusion` is the command `fusion`."""

import sys

from fusion.commands.main import main

sys.exit(main())
