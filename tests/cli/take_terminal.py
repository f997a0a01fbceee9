"""Make stdin the controlling terminal of this process, then execute the command of the arguments.

In a session of its own, the command is the only process that gets the SIGINT of Ctrl-C. The signal's default handler is
restored because a shell makes background processes ignore SIGINT, and a child inherits that.
"""

import fcntl
import os
import signal
import sys
import termios

os.setsid()
signal.signal(signal.SIGINT, signal.SIG_DFL)
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
