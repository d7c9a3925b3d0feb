import sys

from scripts.parity import main

sys.exit(main())
