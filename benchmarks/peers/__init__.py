"""What a user would pick instead of ``ll.run``: each in a file of its own, in an environment of their own."""
