"""What jobs there are and how they are called: definitions, variables, launch, the watch."""
