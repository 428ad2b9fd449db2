"""`python -m gmcore` is the command line `gmtensor`.

Python puts the current folder first on the import path, where a file yaml.py would be executed in place of the
package. It is taken off the path, unless gmcore itself lies there.
"""

import os
import sys

safe = sys.flags.isolated or getattr(sys.flags, "safe_path", False)  # -P exists since Python 3.11
if sys.argv[0] == __file__ and not safe and sys.path[0] != os.path.dirname(os.path.dirname(__file__)):
    del sys.path[0]

from gmcore.commands.app import main  # noqa: E402

main()
