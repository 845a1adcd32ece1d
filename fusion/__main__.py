"""python -m fusion"""

import sys

from fusion.commands.main import main

sys.exit(main())
