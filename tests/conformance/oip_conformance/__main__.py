"""`python -m oip_conformance URL`."""

import sys

from oip_conformance.command import main

sys.exit(main())
