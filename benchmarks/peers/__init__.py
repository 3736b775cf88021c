"""Other runners in the same harness: a script each, run by the interpreter of an environment made for it."""
