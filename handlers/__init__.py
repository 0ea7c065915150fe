"""The rules: what a command may do (`decide`) and what a state still needs done (`advance`)."""
