"""What the processes of one service say to each other: the main one and its workers."""
