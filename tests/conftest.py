"""A shell's background processes ignore Ctrl-C, and so would those that tests start to interrupt them."""

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
