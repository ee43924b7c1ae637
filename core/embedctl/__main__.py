"""`python -m embedctl`."""

import sys

from embedctl.cli.entry import main

sys.exit(main())
