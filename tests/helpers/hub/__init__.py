"""A small Hub on loopback, the command line that talks to it, and what it is sent."""
