"""`python -m engine.emulator`: see README.md beside this file."""

import sys

from engine.emulator.server import main

sys.exit(main(sys.argv[1:]))
