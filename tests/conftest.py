"""Processes that a shell starts in the background ignore Ctrl-C, and so would those that tests start to interrupt them."""

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
