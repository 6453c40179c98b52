"""Where a request belongs. Pure and synchronous: `now` and randomness are arguments, nobody is asked here."""
